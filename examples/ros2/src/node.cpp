/* node.cpp - a ROS 2 node around policy.h: camera images and joint states in, chunks of actions out.
 * README.md has its topics and parameters.
 *
 * Rules. The latest of each input is kept, and a timer hands them over together; an observation is as old as
 * its oldest part. The policy runs in its own thread. Whatever goes wrong (an error of the policy, a part or
 * an answer that is too old, an image that cannot be read) stops the motion: one message that says so, and
 * none after it until ~/start is called. The last chunk is never repeated. */
#include "policy.h"

#include <diagnostic_msgs/msg/diagnostic_array.hpp>
#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <sensor_msgs/msg/joint_state.hpp>
#include <std_msgs/msg/string.hpp>
#include <std_srvs/srv/trigger.hpp>
#include <trajectory_msgs/msg/joint_trajectory.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

using diagnostic_msgs::msg::DiagnosticArray;
using diagnostic_msgs::msg::DiagnosticStatus;
using diagnostic_msgs::msg::KeyValue;
using sensor_msgs::msg::Image;
using sensor_msgs::msg::JointState;
using std_srvs::srv::Trigger;
using trajectory_msgs::msg::JointTrajectory;
using trajectory_msgs::msg::JointTrajectoryPoint;

namespace
{

constexpr std::int64_t NS = 1000000000;

template <typename Stamp> std::int64_t nanoseconds(const Stamp &stamp)
{
    return stamp.sec * NS + stamp.nanosec;
}

template <typename Stamp> void set(Stamp &stamp, std::int64_t ns)
{
    stamp.sec = static_cast<std::int32_t>(ns / NS);
    stamp.nanosec = static_cast<std::uint32_t>(ns % NS);
}

KeyValue pair(const char *key, double value)
{
    KeyValue kv;
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    kv.key = key;
    kv.value = text;
    return kv;
}

struct Close {
    void operator()(policy *p) const
    {
        policy_close(&p);
    }
};

struct Picture {
    std::vector<std::uint8_t> rgb;
    std::int64_t height = 0, width = 0, stamp_ns = 0;
};

class PolicyNode : public rclcpp::Node
{
  public:
    PolicyNode() : Node("pivot_policy")
    {
        read_parameters();
        open();
        listen();
    }

  private:
    /* ---- parameters ---- */

    std::string text(const char *name, const char *usual)
    {
        return declare_parameter<std::string>(name, usual);
    }

    std::vector<std::string> texts(const char *name)
    {
        return declare_parameter<std::vector<std::string>>(name, std::vector<std::string>{});
    }

    void read_parameters()
    {
        model_ = text("model", "synth:tiny");
        robot_ = text("robot", "libero");
        backend_ = text("backend", "cpu");
        device_ = text("device", "");
        recipe_ = text("recipe", "f32");
        tokenizer_ = text("tokenizer", "");
        norm_stats_ = text("norm_stats", "");
        schedule_ = text("schedule", "openpi");
        discrete_state_ = text("discrete_state", "auto");
        steps_ = static_cast<int>(declare_parameter<std::int64_t>("steps", 0));
        prompt_ = text("prompt", "");
        cameras_ = texts("cameras");
        joint_topic_ = text("joint_topic", "joint_states");
        joints_ = texts("joints");
        action_names_ = texts("action_names");
        stop_action_ = declare_parameter<std::vector<double>>("stop_action", std::vector<double>{});
        rate_hz_ = declare_parameter<double>("rate_hz", 20.0);
        control_hz_ = declare_parameter<double>("control_hz", 20.0);
        max_age_ms_ = declare_parameter<double>("max_age_ms", 500.0);
        if (!(rate_hz_ > 0) || !(control_hz_ > 0) || !(max_age_ms_ > 0))
            throw std::runtime_error("rate_hz, control_hz and max_age_ms: expected numbers above 0");
        if (discrete_state_ != "auto" && discrete_state_ != "on" && discrete_state_ != "off")
            throw std::runtime_error("discrete_state: expected auto, on or off, came '" + discrete_state_ +
                                     "'");
    }

    void open()
    {
        policy_options o = {};
        auto given = [](const std::string &s) { return s.empty() ? nullptr : s.c_str(); };
        o.model = model_.c_str();
        o.robot = robot_.c_str();
        o.backend = backend_.c_str();
        o.device = given(device_);
        o.recipe = recipe_.c_str();
        o.tokenizer = given(tokenizer_);
        o.norm_stats = given(norm_stats_);
        o.schedule = schedule_.c_str();
        o.discrete_state = discrete_state_ == "on" ? PV_ON : discrete_state_ == "off" ? PV_OFF : PV_AUTO;
        o.steps = steps_;
        o.max_age_ms = max_age_ms_;
        o.done = [](void *self, const policy_result *r) { static_cast<PolicyNode *>(self)->done(*r); };
        o.user = this;
        policy *opened = nullptr;
        pv_status st = policy_open(&o, &opened);
        policy_.reset(opened);
        if (st)
            throw std::runtime_error(std::string("policy: ") + pv_status_text(st) + ": " + pv_error_text());
    }

    /* ---- inputs ---- */

    void listen()
    {
        const pv_robot_info *about = policy_robot(policy_.get());
        for (const std::string &camera : cameras_) {
            std::size_t sign = camera.find('=');
            if (sign == std::string::npos || sign == 0 || sign + 1 == camera.size())
                throw std::runtime_error("cameras: expected KEY=TOPIC, came '" + camera + "'");
            watch(about, camera.substr(0, sign), camera.substr(sign + 1));
        }
        for (int i = 0; i < about->n_cameras; i++)
            if (about->key[i] && !about->optional[i] && !pictures_.count(about->key[i]))
                throw std::runtime_error(std::string("cameras: the robot needs ") + about->key[i] + "=TOPIC");
        if (!joints_.empty() && joints_.size() != static_cast<std::size_t>(about->state_dim))
            throw std::runtime_error("joints: the robot's state has " + std::to_string(about->state_dim) +
                                     " numbers, came " + std::to_string(joints_.size()) + " names");
        if (!stop_action_.empty() && stop_action_.size() != static_cast<std::size_t>(about->action_dim))
            throw std::runtime_error("stop_action: the robot's actions have " +
                                     std::to_string(about->action_dim) + " numbers");
        chunks_ = create_publisher<JointTrajectory>("~/actions", 1);
        diagnostics_ = create_publisher<DiagnosticArray>("/diagnostics", 10);
        joint_sub_ = create_subscription<JointState>(
            joint_topic_, rclcpp::SensorDataQoS(), [this](JointState::ConstSharedPtr m) { see_joints(*m); });
        prompt_sub_ = create_subscription<std_msgs::msg::String>(
            "~/prompt", 1, [this](std_msgs::msg::String::ConstSharedPtr m) { prompt_ = m->data; });
        start_ = create_service<Trigger>(
            "~/start", [this](const std::shared_ptr<Trigger::Request>,
                              std::shared_ptr<Trigger::Response> answer) { start(*answer); });
        timer_ = create_wall_timer(std::chrono::duration<double>(1 / rate_hz_), [this] { tick(); });
    }

    void watch(const pv_robot_info *about, const std::string &key, const std::string &topic)
    {
        bool known = false;
        for (int i = 0; i < about->n_cameras; i++)
            known = known || (about->key[i] && key == about->key[i]);
        if (!known)
            throw std::runtime_error("cameras: robot '" + robot_ + "' has no picture '" + key + "'");
        pictures_[key];
        image_subs_.push_back(create_subscription<Image>(
            topic, rclcpp::SensorDataQoS(), [this, key](Image::ConstSharedPtr m) { see_image(key, *m); }));
    }

    void see_image(const std::string &key, const Image &m)
    {
        bool bgr = m.encoding == "bgr8";
        if ((!bgr && m.encoding != "rgb8") || !m.width || !m.height || m.step < 3 * std::uint64_t{m.width} ||
            m.data.size() / m.step < m.height) {
            stop("image for " + key + ": expected rgb8 or bgr8 of the size it says, came " + m.encoding);
            return;
        }
        Picture &p = pictures_[key];
        p.height = m.height;
        p.width = m.width;
        p.rgb.resize(std::size_t{3} * m.width * m.height);
        for (std::size_t y = 0; y < m.height; y++) {
            const std::uint8_t *from = m.data.data() + y * m.step;
            std::uint8_t *to = p.rgb.data() + y * 3 * m.width;
            std::copy(from, from + std::size_t{3} * m.width, to);
            for (std::size_t x = 0; bgr && x < m.width; x++)
                std::swap(to[3 * x], to[3 * x + 2]);
        }
        p.stamp_ns = nanoseconds(m.header.stamp);
    }

    void see_joints(const JointState &m)
    {
        std::size_t n = static_cast<std::size_t>(policy_robot(policy_.get())->state_dim);
        std::vector<double> state;
        if (joints_.empty())
            state.assign(m.position.begin(), m.position.end());
        for (const std::string &name : joints_)
            for (std::size_t i = 0; i < m.name.size() && i < m.position.size(); i++)
                if (m.name[i] == name)
                    state.push_back(m.position[i]);
        if (state.size() != n && !joints_.empty())
            return; /* of other joints: drivers may share a topic. If ours never come, the state gets too old
                     */
        if (state.size() != n) {
            stop("joint states: expected " + std::to_string(n) + " positions, came " +
                 std::to_string(state.size()));
            return;
        }
        state_ = state;
        state_ns_ = nanoseconds(m.header.stamp);
    }

    /* ---- the timer ---- */

    /* Stamp of the oldest part, or 0: one has not come yet. Optional pictures that never came are not waited
     * for. */
    std::int64_t oldest() const
    {
        const pv_robot_info *about = policy_robot(policy_.get());
        std::int64_t ns = state_ns_;
        for (int i = 0; ns && i < about->n_cameras; i++) {
            auto p = about->key[i] ? pictures_.find(about->key[i]) : pictures_.end();
            if (p != pictures_.end() && (p->second.stamp_ns || !about->optional[i]))
                ns = std::min(ns, p->second.stamp_ns);
        }
        return ns;
    }

    void tick()
    {
        std::int64_t ns = oldest(), now_ns = now().nanoseconds();
        double age_ms = static_cast<double>(now_ns - ns) / 1e6, waits_ms = 0;
        {
            std::lock_guard<std::mutex> hold(lock_);
            if (stopped_)
                return;
            if (asked_ms_ > 0)
                waits_ms = pv_clock_ms() - asked_ms_;
        }
        if (waits_ms > max_age_ms_)
            stop("the policy has not answered for " + std::to_string(static_cast<long>(waits_ms)) + " ms");
        else if (ns && age_ms > max_age_ms_)
            stop("a part of the observation is " + std::to_string(static_cast<long>(age_ms)) +
                 " ms old: a camera or the joints are silent");
        else if (ns && ns != sent_ns_)
            send(ns, age_ms);
    }

    void send(std::int64_t ns, double age_ms)
    {
        const pv_robot_info *about = policy_robot(policy_.get());
        std::vector<pv_field> fields;
        for (const auto &part : pictures_)
            if (part.second.stamp_ns) {
                pv_field f = {part.first.c_str(),
                              PV_FIELD_U8,
                              3,
                              {part.second.height, part.second.width, 3},
                              part.second.rgb.data()};
                fields.push_back(f);
            }
        const double *at = state_.data();
        for (int i = 0; i < about->n_state_keys; i++) {
            pv_field f = {about->state_key[i], PV_FIELD_F64, 1, {about->state_key_dim[i]}, at};
            fields.push_back(f);
            at += about->state_key_dim[i];
        }
        if (!prompt_.empty()) {
            pv_field f = {about->prompt_key,
                          PV_FIELD_TEXT,
                          1,
                          {static_cast<std::int64_t>(prompt_.size())},
                          prompt_.data()};
            fields.push_back(f);
        }
        policy_seen seen = {};
        seen.fields = fields.data();
        seen.n_fields = static_cast<int>(fields.size());
        seen.stamp_ns = ns;
        seen.seen_ms = pv_clock_ms() - std::max(age_ms, 0.0);
        {
            std::lock_guard<std::mutex> hold(lock_);
            seen.id = ++last_id_;
            if (!(asked_ms_ > 0))
                asked_ms_ = pv_clock_ms();
        }
        pv_status st = policy_put(policy_.get(), &seen);
        if (st)
            stop(std::string("the observation was not taken: ") + pv_status_text(st));
        sent_ns_ = ns;
    }

    /* ---- what comes out ---- */

    /* On the policy's thread. */
    void done(const policy_result &r)
    {
        if (r.error) {
            stop(r.error, r.id);
            return;
        }
        JointTrajectory chunk;
        set(chunk.header.stamp, r.stamp_ns);
        chunk.joint_names = action_names_;
        chunk.points.resize(static_cast<std::size_t>(r.horizon));
        for (int h = 0; h < r.horizon; h++) {
            JointTrajectoryPoint &p = chunk.points[static_cast<std::size_t>(h)];
            p.positions.assign(r.actions + static_cast<std::ptrdiff_t>(h) * r.dims,
                               r.actions + static_cast<std::ptrdiff_t>(h + 1) * r.dims);
            set(p.time_from_start, static_cast<std::int64_t>((h + 1) / control_hz_ * 1e9));
        }
        DiagnosticStatus status;
        status.level = DiagnosticStatus::OK;
        status.message = "a chunk";
        status.values = {
            pair("observation", static_cast<double>(r.id)), pair("age_ms", r.timing.age_ms),
            pair("observe_ms", r.timing.observe_ms),        pair("vision_ms", r.timing.vision_ms),
            pair("prefix_ms", r.timing.prefix_ms),          pair("schedule_ms", r.timing.schedule_ms),
            pair("denoise_ms", r.timing.denoise_ms),        pair("inference_ms", r.timing.total_ms)};
        std::lock_guard<std::mutex> hold(lock_);
        asked_ms_ = r.id < last_id_ ? pv_clock_ms() : 0; /* a later one waits, since now */
        if (stopped_ || r.id < first_id_)
            return;
        chunks_->publish(chunk);
        tell(status, r.stamp_ns);
    }

    /* id: of the observation it is about; 0: of none in particular. */
    void stop(const std::string &words, std::uint64_t id = 0)
    {
        JointTrajectory chunk;
        std::int64_t ns = now().nanoseconds();
        set(chunk.header.stamp, ns);
        chunk.joint_names = action_names_;
        if (!stop_action_.empty()) {
            chunk.points.resize(1);
            chunk.points[0].positions = stop_action_;
        }
        DiagnosticStatus status;
        status.level = DiagnosticStatus::ERROR;
        status.message = words;
        std::lock_guard<std::mutex> hold(lock_);
        asked_ms_ = 0;
        if (stopped_ || (id && id < first_id_))
            return;
        stopped_ = true;
        chunks_->publish(chunk);
        tell(status, ns);
        RCLCPP_ERROR(get_logger(), "stopped: %s", words.c_str());
    }

    void tell(DiagnosticStatus &status, std::int64_t ns)
    {
        DiagnosticArray all;
        set(all.header.stamp, ns);
        status.name = "pivot_policy";
        status.hardware_id = robot_;
        all.status.push_back(status);
        diagnostics_->publish(all);
    }

    /* Goes on after a stop, with parts that come from now on. */
    void start(Trigger::Response &answer)
    {
        for (auto &part : pictures_)
            part.second.stamp_ns = 0;
        state_ns_ = sent_ns_ = 0;
        std::lock_guard<std::mutex> hold(lock_);
        answer.success = true;
        answer.message = stopped_ ? "was stopped" : "was not stopped";
        stopped_ = false;
        asked_ms_ = 0;
        first_id_ = last_id_ + 1;
    }

    std::string model_, robot_, backend_, device_, recipe_, tokenizer_, norm_stats_, schedule_,
        discrete_state_, prompt_, joint_topic_;
    std::vector<std::string> cameras_, joints_, action_names_;
    std::vector<double> stop_action_;
    double rate_hz_ = 0, control_hz_ = 0, max_age_ms_ = 0;
    int steps_ = 0;

    std::map<std::string, Picture> pictures_; /* by key; the stamp is 0 until one has come */
    std::vector<double> state_;
    std::int64_t state_ns_ = 0, sent_ns_ = 0;

    std::mutex lock_; /* of what follows, and of the order in which messages go out */
    bool stopped_ = false;
    std::uint64_t last_id_ = 0,
                  first_id_ = 0; /* of observations; those before first_id_ are from before a start */
    double asked_ms_ = 0;        /* since when an answer is waited for; 0: none is */

    rclcpp::Publisher<JointTrajectory>::SharedPtr chunks_;
    rclcpp::Publisher<DiagnosticArray>::SharedPtr diagnostics_;
    rclcpp::Subscription<JointState>::SharedPtr joint_sub_;
    rclcpp::Subscription<std_msgs::msg::String>::SharedPtr prompt_sub_;
    std::vector<rclcpp::Subscription<Image>::SharedPtr> image_subs_;
    rclcpp::Service<Trigger>::SharedPtr start_;
    rclcpp::TimerBase::SharedPtr timer_;
    std::unique_ptr<policy, Close> policy_; /* the last member: its thread ends before what it uses */
};

} // namespace

int main(int argc, char **argv)
{
    rclcpp::init(argc, argv);
    int code = 0;
    try {
        rclcpp::spin(std::make_shared<PolicyNode>());
    } catch (const std::exception &wrong) {
        RCLCPP_FATAL(rclcpp::get_logger("pivot_policy"), "%s", wrong.what());
        code = 1;
    }
    rclcpp::shutdown();
    return code;
}
