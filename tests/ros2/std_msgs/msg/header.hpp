#ifndef PIVOT_TESTS_HEADER_HPP
#define PIVOT_TESTS_HEADER_HPP

#include <cstdint>
#include <string>

namespace std_msgs::msg
{

struct Time {
    std::int32_t sec = 0;
    std::uint32_t nanosec = 0;
};
struct Header {
    Time stamp;
    std::string frame_id;
};

} // namespace std_msgs::msg

#endif
