/* node.cc - examples/ros2 against stand-ins for ROS 2's headers: what the node publishes, and that whatever
 * goes wrong stops it. */
#define main node_main
#include "examples/ros2/src/node.cpp"
#undef main

#include "tests/test.h"

#include <condition_variable>
#include <thread>

using rclcpp::world;

static std::int64_t now_ns()
{
    return rclcpp::Node("").now().nanoseconds();
}

template <typename M> static void give(const char *topic, const M &m)
{
    auto to = std::any_cast<std::shared_ptr<rclcpp::Subscription<M>>>(world.subscriptions.at(topic));
    to->callback(std::make_shared<const M>(m));
}

static Image image(std::int64_t ns, const char *encoding = "rgb8")
{
    Image m;
    set(m.header.stamp, ns);
    m.height = 6, m.width = 8, m.step = 30; /* rows with something behind them */
    m.encoding = encoding;
    m.data.assign(180, 200);
    for (std::size_t y = 0; y < 6; y++)
        for (std::size_t x = 0; x < 24; x++)
            m.data[y * 30 + x] = static_cast<std::uint8_t>(x * 9 + y);
    return m;
}

static JointState joints(std::int64_t ns, double first = 0.1)
{
    JointState m;
    set(m.header.stamp, ns);
    for (int i = 7; i >= -1; i--) { /* another order, and one more */
        m.name.push_back("j" + std::to_string(i));
        m.position.push_back(i == 0 ? first : 0.1 * i);
    }
    return m;
}

static std::vector<JointTrajectory> chunks()
{
    auto from =
        std::any_cast<std::shared_ptr<rclcpp::Publisher<JointTrajectory>>>(world.publishers.at("~/actions"));
    std::lock_guard<std::mutex> hold(world.lock);
    return from->sent;
}

static DiagnosticArray said()
{
    auto from = std::any_cast<std::shared_ptr<rclcpp::Publisher<DiagnosticArray>>>(
        world.publishers.at("/diagnostics"));
    std::lock_guard<std::mutex> hold(world.lock);
    return from->sent.empty() ? DiagnosticArray() : from->sent.back();
}

/* Waits until so many chunks have been published, and a little for more. */
static bool come(std::size_t n, int wait_ms = 50)
{
    for (int i = 0; i < 20000 && chunks().size() < n; i++)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(wait_ms));
    return CHECK(chunks().size() == n);
}

static bool stopped(std::size_t n, const char *words)
{
    if (!come(n))
        return false;
    DiagnosticArray d = said();
    JointTrajectory last = chunks().back();
    bool ok = CHECK(d.status.size() == 1 && d.status[0].level == DiagnosticStatus::ERROR) &&
              CHECK(d.status[0].message.find(words) != std::string::npos) &&
              CHECK(last.points.size() == 1 &&
                    last.points[0].positions == std::vector<double>({0, 0, 0, 0, 0, 0, -1}));
    if (!ok && d.status.size() == 1)
        printf("    expected '%s', it said '%s'\n", words, d.status[0].message.c_str());
    return ok;
}

static void all(std::int64_t ns)
{
    give("/front", image(ns, "bgr8"));
    give("/wrist", image(ns));
    give("/joints", joints(ns));
}

static void start()
{
    auto service = std::any_cast<std::shared_ptr<rclcpp::Service<Trigger>>>(world.services.at("~/start"));
    auto answer = std::make_shared<Trigger::Response>();
    service->callback(std::make_shared<Trigger::Request>(), answer);
    CHECK(answer->success);
}

/* The same by calls of the library. */
static std::vector<double> expected(std::uint64_t seed)
{
    pv_backend *backend = nullptr;
    pv_model *model = nullptr;
    pv_robot *robot = nullptr;
    pv_session *session = nullptr;
    pv_frame *frame = nullptr;
    std::vector<float> rounded(70);
    std::vector<double> exact(70), out(70);
    std::vector<std::uint8_t> rgb(144), bgr(144);
    Image m = image(0);
    for (std::size_t i = 0; i < 144; i++)
        rgb[i] = m.data[i / 24 * 30 + i % 24];
    for (std::size_t i = 0; i < 144; i++)
        bgr[i] = rgb[i / 3 * 3 + 2 - i % 3];
    const double state[8] = {0.1, 0.1 * 1, 0.1 * 2, 0.1 * 3, 0.1 * 4, 0.1 * 5, 0.1 * 6, 0.1 * 7};
    const pv_field fields[] = {{"observation/image", PV_FIELD_U8, 3, {6, 8, 3}, bgr.data()},
                               {"observation/wrist_image", PV_FIELD_U8, 3, {6, 8, 3}, rgb.data()},
                               {"observation/state", PV_FIELD_F64, 1, {8}, state},
                               {"prompt", PV_FIELD_TEXT, 1, {7}, "lift it"}};
    pv_infer_params p = {};
    p.seed = seed;
    p.actions_f64 = exact.data();
    CHECK_OK(pv_backend_open("cpu", nullptr, &backend));
    CHECK_OK(pv_model_load("synth:tiny", nullptr, &model));
    CHECK_OK(pv_robot_load("libero", &robot));
    CHECK_OK(pv_session_create(model, backend, nullptr, &session));
    CHECK_OK(pv_robot_observe(robot, fields, 4, &frame));
    CHECK_OK(pv_session_infer(session, pv_frame_observation(frame), &p, rounded.data()));
    CHECK_OK(pv_robot_act(robot, model, frame, exact.data(), 10, 7, out.data()));
    pv_frame_free(&frame);
    pv_session_destroy(&session);
    pv_robot_free(&robot);
    pv_model_free(&model);
    pv_backend_close(&backend);
    return out;
}

static void life()
{
    std::int64_t ns = now_ns();
    give("/front", image(ns - 2000000, "bgr8"));
    world.timer(); /* the rest has not come yet */
    give("/wrist", image(ns - 5000000));
    give("/joints", joints(ns));
    world.timer();
    if (!come(1))
        return;
    JointTrajectory c = chunks()[0];
    CHECK(nanoseconds(c.header.stamp) == ns - 5000000 && c.joint_names.size() == 7 && c.points.size() == 10);
    std::vector<double> want = expected(1);
    for (std::size_t h = 0; h < 10; h++) {
        CHECK(c.points[h].positions == std::vector<double>(want.begin() + static_cast<long>(7 * h),
                                                           want.begin() + static_cast<long>(7 * h + 7)));
        CHECK(nanoseconds(c.points[h].time_from_start) == static_cast<std::int64_t>((h + 1) * 100000000));
    }
    DiagnosticArray d = said();
    CHECK(d.status.size() == 1 && d.status[0].level == DiagnosticStatus::OK &&
          d.status[0].values.size() == 8);
    CHECK(d.header.stamp.nanosec == c.header.stamp.nanosec && d.status[0].values[0].value == "1");
    CHECK(std::stod(d.status[0].values[1].value) >=
          5);      /* the oldest part was 5 ms old when the joints came */
    world.timer(); /* nothing new: nothing is repeated */
    come(1);
    all(now_ns());
    world.timer();
    come(2);

    give("/front", image(now_ns(), "mono8"));
    stopped(3, "observation/image: expected rgb8 or bgr8");
    all(now_ns());
    world.timer(); /* stopped is stopped */
    come(3);
    start();
    world.timer(); /* what came before is forgotten */
    come(3);
    all(now_ns());
    world.timer();
    come(4);

    all(now_ns() - 30 * NS);
    world.timer();
    stopped(5, "a camera or the joints are silent");
    start();
    all(now_ns());
    give("/joints", joints(now_ns(), NAN));
    world.timer();
    stopped(6, "observation/state");
    start();
    JointState others;
    others.name = {"x"};
    others.position = {1};
    give("/joints", others); /* of another robot's joints: passed over */
    all(now_ns());
    std_msgs::msg::String words;
    words.data = "two words";
    give("~/prompt", words);
    world.timer();
    come(7);
}

static int run(const std::function<void()> &spin)
{
    world.spin = spin;
    world.log.clear();
    return node_main(0, nullptr);
}

static void refused(const char *name, const std::any &value, const char *words)
{
    std::any before = world.parameters[name];
    world.parameters[name] = value;
    CHECK(run([] { CHECK(!"it should not have begun"); }) == 1);
    if (!CHECK(world.log.size() == 1 && world.log[0].find(words) != std::string::npos))
        printf("    expected '%s', it said '%s'\n", words, world.log.empty() ? "" : world.log[0].c_str());
    world.parameters[name] = before;
}

/* Of observations that come while one is at work, the last is taken; after policy_close nothing comes. */
struct Turn {
    std::mutex lock;
    std::condition_variable change;
    std::vector<std::uint64_t> ids;
    bool go = false;
};

static void latest_wins()
{
    Turn turn;
    policy *p = nullptr;
    policy_options o = {};
    o.model = "synth:tiny";
    o.robot = "libero";
    o.user = &turn;
    o.done = [](void *user, const policy_result *r) {
        Turn &t = *static_cast<Turn *>(user);
        std::unique_lock<std::mutex> hold(t.lock);
        CHECK(r->error && strstr(r->error, "observation/image")); /* the fields below are none of LIBERO's */
        t.ids.push_back(r->id);
        t.change.notify_all();
        t.change.wait(hold, [&t] { return t.go; });
    };
    if (!CHECK_OK(policy_open(&o, &p)))
        return;
    const double x = 1;
    const pv_field f = {"x", PV_FIELD_F64, 0, {0}, &x};
    for (std::uint64_t id = 1; id <= 4; id++) {
        policy_seen seen = {};
        seen.fields = &f;
        seen.n_fields = 1;
        seen.id = id;
        CHECK_OK(policy_put(p, &seen));
        std::unique_lock<std::mutex> hold(turn.lock);
        turn.change.wait(hold, [&turn] { return !turn.ids.empty(); });
    }
    {
        std::unique_lock<std::mutex> hold(turn.lock);
        turn.go = true;
        turn.change.notify_all();
        turn.change.wait(hold, [&turn] { return turn.ids.size() == 2; });
    }
    policy_close(&p);
    CHECK(!p && turn.ids == std::vector<std::uint64_t>({1, 4}));
    o.model = "nothing";
    CHECK_STATUS(policy_open(&o, &p), PV_E_FILE);
    CHECK(!p);
}

int main()
{
    using Texts = std::vector<std::string>;
    world.parameters = {{"cameras", Texts{"observation/image=/front", "observation/wrist_image=/wrist"}},
                        {"joint_topic", std::string("/joints")},
                        {"joints", Texts{"j0", "j1", "j2", "j3", "j4", "j5", "j6", "j7"}},
                        {"action_names", Texts{"x", "y", "z", "a", "b", "c", "grip"}},
                        {"prompt", std::string("lift it")},
                        {"model", std::string("synth:tiny")},
                        {"control_hz", 10.0},
                        {"max_age_ms", 20000.0},
                        {"stop_action", std::vector<double>{0, 0, 0, 0, 0, 0, -1}}};
    latest_wins();
    CHECK(run(life) == 0);
    CHECK(world.log.size() == 3 && world.log[0].find("stopped: image for") == 0);
    refused("model", std::string("nothing"), "nothing: no such folder");
    refused("cameras", Texts{"observation/image=/front"}, "needs observation/wrist_image=TOPIC");
    refused("cameras", Texts{"front=/front"}, "has no picture 'front'");
    refused("cameras", Texts{"front"}, "expected KEY=TOPIC");
    refused("joints", Texts{"a"}, "8 numbers");
    refused("stop_action", std::vector<double>{1}, "7 numbers");
    refused("max_age_ms", 0.0, "above 0");
    return test_done();
}
