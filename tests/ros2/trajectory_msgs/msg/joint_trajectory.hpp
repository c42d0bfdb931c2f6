#ifndef PIVOT_TESTS_JOINT_TRAJECTORY_HPP
#define PIVOT_TESTS_JOINT_TRAJECTORY_HPP

#include <std_msgs/msg/header.hpp>
#include <vector>

namespace trajectory_msgs::msg
{

struct JointTrajectoryPoint {
    std::vector<double> positions;
    std_msgs::msg::Time time_from_start; /* ROS 2: a Duration, with the same fields */
};
struct JointTrajectory {
    std_msgs::msg::Header header;
    std::vector<std::string> joint_names;
    std::vector<JointTrajectoryPoint> points;
};

} // namespace trajectory_msgs::msg

#endif
