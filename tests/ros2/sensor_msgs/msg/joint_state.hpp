#ifndef PIVOT_TESTS_JOINT_STATE_HPP
#define PIVOT_TESTS_JOINT_STATE_HPP

#include <std_msgs/msg/header.hpp>
#include <memory>
#include <vector>

namespace sensor_msgs::msg
{

struct JointState {
    using ConstSharedPtr = std::shared_ptr<const JointState>;
    std_msgs::msg::Header header;
    std::vector<std::string> name;
    std::vector<double> position;
};

} // namespace sensor_msgs::msg

#endif
