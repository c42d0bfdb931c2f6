#ifndef PIVOT_TESTS_IMAGE_HPP
#define PIVOT_TESTS_IMAGE_HPP

#include <std_msgs/msg/header.hpp>
#include <memory>
#include <vector>

namespace sensor_msgs::msg
{

struct Image {
    using ConstSharedPtr = std::shared_ptr<const Image>;
    std_msgs::msg::Header header;
    std::uint32_t height = 0, width = 0, step = 0;
    std::string encoding;
    std::vector<std::uint8_t> data;
};

} // namespace sensor_msgs::msg

#endif
