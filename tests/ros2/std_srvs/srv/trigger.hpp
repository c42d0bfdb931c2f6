#ifndef PIVOT_TESTS_TRIGGER_HPP
#define PIVOT_TESTS_TRIGGER_HPP

#include <string>

namespace std_srvs::srv
{

struct Trigger {
    struct Request {
    };
    struct Response {
        bool success = false;
        std::string message;
    };
};

} // namespace std_srvs::srv

#endif
