/* rclcpp.hpp - stands for ROS 2's in a test: as much of it as examples/ros2 uses, with the test in the place
 * of the middleware. */
#ifndef PIVOT_TESTS_RCLCPP_HPP
#define PIVOT_TESTS_RCLCPP_HPP

#include <any>
#include <chrono>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace rclcpp
{

struct World { /* what the test sets and sees */
    std::map<std::string, std::any> parameters, subscriptions, publishers, services;
    std::function<void()> timer, spin;
    std::vector<std::string> log;
    std::mutex lock;
};
inline World world;

struct Logger {
};
inline Logger get_logger(const char *)
{
    return {};
}
inline void log_line(Logger, const char *format, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, format);
    std::vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    std::lock_guard<std::mutex> hold(world.lock);
    world.log.push_back(line);
}
#define RCLCPP_ERROR(logger, ...) rclcpp::log_line(logger, __VA_ARGS__)
#define RCLCPP_FATAL(logger, ...) rclcpp::log_line(logger, __VA_ARGS__)

struct Time {
    std::int64_t ns;
    std::int64_t nanoseconds() const
    {
        return ns;
    }
};

struct QoS {
    QoS(int)
    {
    }
};
struct SensorDataQoS : QoS {
    SensorDataQoS() : QoS(5)
    {
    }
};

template <typename M> struct Publisher {
    using SharedPtr = std::shared_ptr<Publisher>;
    std::vector<M> sent;
    void publish(const M &m)
    {
        std::lock_guard<std::mutex> hold(world.lock);
        sent.push_back(m);
    }
};

template <typename M> struct Subscription {
    using SharedPtr = std::shared_ptr<Subscription>;
    std::function<void(std::shared_ptr<const M>)> callback;
};

template <typename S> struct Service {
    using SharedPtr = std::shared_ptr<Service>;
    std::function<void(std::shared_ptr<typename S::Request>, std::shared_ptr<typename S::Response>)> callback;
};

struct TimerBase {
    using SharedPtr = std::shared_ptr<TimerBase>;
};

class Node
{
  public:
    explicit Node(const std::string &)
    {
    }
    virtual ~Node() = default;

    template <typename T> T declare_parameter(const std::string &name, const T &usual)
    {
        auto found = world.parameters.find(name);
        return found == world.parameters.end() ? usual : std::any_cast<T>(found->second);
    }
    template <typename M>
    typename Publisher<M>::SharedPtr create_publisher(const std::string &topic, const QoS &)
    {
        auto made = std::make_shared<Publisher<M>>();
        world.publishers[topic] = made;
        return made;
    }
    template <typename M, typename F>
    typename Subscription<M>::SharedPtr create_subscription(const std::string &topic, const QoS &, F callback)
    {
        auto made = std::make_shared<Subscription<M>>();
        made->callback = callback;
        world.subscriptions[topic] = made;
        return made;
    }
    template <typename S, typename F>
    typename Service<S>::SharedPtr create_service(const std::string &name, F callback)
    {
        auto made = std::make_shared<Service<S>>();
        made->callback = callback;
        world.services[name] = made;
        return made;
    }
    template <typename F> TimerBase::SharedPtr create_wall_timer(std::chrono::duration<double>, F callback)
    {
        world.timer = callback;
        return std::make_shared<TimerBase>();
    }
    Time now() const
    {
        return {std::chrono::duration_cast<std::chrono::nanoseconds>(
                    std::chrono::system_clock::now().time_since_epoch())
                    .count()};
    }
    Logger get_logger() const
    {
        return {};
    }
};

inline void init(int, char **)
{
}
inline void shutdown()
{
}
inline void spin(std::shared_ptr<Node>)
{
    world.spin();
}

} // namespace rclcpp

#endif
