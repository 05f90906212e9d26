// Simulator client that applies the plans of decisions to a toy machine, in one file of C++17.
//
//   apt-get install g++ libcurl4-openssl-dev nlohmann-json3-dev
//   g++ -std=c++17 -O2 -Wall -Wextra -o apply_plan examples/apply_plan.cpp -lcurl
//   ./apply_plan URL EVENTS.ndjson
//
// It prints the final state of each machine (`source`), as examples/apply_plan.py does. The API key is in RAS_TRIAGE_TOKEN.
// Exit status: 0 all events were applied, 1 the service did not respond, 2 some events were refused.

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using nlohmann::json;

// ---- HTTP: one event in, one decision or problem out -------------------------------------------------------------------------------

struct Response {
    long status = 0;
    std::string body;
    std::string failure;       // of the connection; empty: there is a response
    double retry_after_s = 0;  // of the header Retry-After, a number or a date
};

struct Unreachable : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string random_hex(int digits) {
    static std::random_device source;
    std::string text;
    for (int i = 0; i < digits; ++i) text += "0123456789abcdef"[source() % 16];
    return text;
}

class Service {
public:
    explicit Service(const std::string& url) : handle_(curl_easy_init(), curl_easy_cleanup), url_(url + "/v1/decisions") {
        if (!handle_) throw std::runtime_error("libcurl cannot be initialised");
    }

    // Sends an event until the service responds. The key is made once for each event, so that a retry is never decided twice.
    Response decide(const std::string& event) {
        const std::string key = random_hex(32);
        for (int attempt = 1;; ++attempt) {
            Response response = post(event, key);
            if (!is_transient(response)) return response;
            if (attempt == most_attempts || response.retry_after_s > longest_pause_s) throw Unreachable(describe(response));
            std::this_thread::sleep_for(std::chrono::duration<double>(pause_s(attempt, response.retry_after_s)));
        }
    }

private:
    static constexpr int most_attempts = 10;
    static constexpr double first_pause_s = 0.1, longest_pause_s = 30;

    static bool is_transient(const Response& response) {
        static const std::set<long> statuses{408, 429, 502, 503, 504};
        return !response.failure.empty() || statuses.count(response.status) > 0;
    }

    // Never sooner than Retry-After; the random part keeps clients that failed together from retrying together.
    static double pause_s(int attempt, double retry_after_s) {
        static std::minstd_rand generator{std::random_device{}()};
        const double backoff = std::min(first_pause_s * (1 << attempt), longest_pause_s);
        const double part = std::uniform_real_distribution<>(0.5, 1.0)(generator);
        return std::min(retry_after_s + backoff * part, longest_pause_s);
    }

    static std::string describe(const Response& response) {
        if (!response.failure.empty()) return response.failure;
        const json problem = json::parse(response.body, nullptr, false);
        const std::string status = "status " + std::to_string(response.status);
        return problem.is_object() ? status + ": " + problem.value("detail", "") : status;
    }

    Response post(const std::string& event, const std::string& key) {
        Response response;
        curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
        list = curl_slist_append(list, ("Idempotency-Key: " + key).c_str());
        if (const char* token = std::getenv("RAS_TRIAGE_TOKEN"))
            list = curl_slist_append(list, (std::string("Authorization: Bearer ") + token).c_str());
        const std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)> headers(list, curl_slist_free_all);
        char reason[CURL_ERROR_SIZE] = "";
        CURL* handle = handle_.get();
        curl_easy_reset(handle);  // keeps the connection
        curl_easy_setopt(handle, CURLOPT_URL, url_.c_str());
        curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.get());
        curl_easy_setopt(handle, CURLOPT_POSTFIELDS, event.data());
        curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(event.size()));
        curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT, 10L);
        curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);  // a request that is silent for 30 s has failed
        curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, 30L);
        curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, reason);
        curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &append);
        curl_easy_setopt(handle, CURLOPT_WRITEDATA, &response.body);
        if (const CURLcode code = curl_easy_perform(handle); code != CURLE_OK) {
            response.failure = *reason ? reason : curl_easy_strerror(code);
            return response;
        }
        curl_off_t seconds = 0;
        curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &response.status);
        curl_easy_getinfo(handle, CURLINFO_RETRY_AFTER, &seconds);
        response.retry_after_s = static_cast<double>(seconds);
        return response;
    }

    static std::size_t append(const char* data, std::size_t size, std::size_t count, void* body) {
        static_cast<std::string*>(body)->append(data, size * count);
        return size * count;
    }

    std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> handle_;
    std::string url_;
};

// A problem document (RFC 9457) in one line for each error, each with its place.
std::string explain(const Response& response) {
    const json problem = json::parse(response.body, nullptr, false);
    if (!problem.is_object()) return "status " + std::to_string(response.status) + " without a problem document";
    std::string text = problem.value("type", "about:blank") + " (" + std::to_string(response.status) + "): " + problem.value("detail", "");
    for (const json& error : problem.value("errors", json::array()))
        text += "\n  `" + error.value("pointer", "") + "`: " + error.value("detail", "");
    return text;
}

// ---- The toy machine ---------------------------------------------------------------------------------------------------------------

using Bytes = std::vector<std::uint8_t>;
constexpr std::size_t error_source_bytes = 1024;
constexpr int default_page_size = 4096;

// Addresses are hexadecimal strings in a decision; in an event also numbers.
std::uint64_t number(const json& value) {
    return value.is_string() ? std::stoull(value.get<std::string>(), nullptr, 16) : value.get<std::uint64_t>();
}

std::string hex(std::uint64_t value) {
    char text[19];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

// Members of an event may be absent or null.
template <typename Value>
Value value_or(const json& object, const char* name, Value otherwise) {
    return object.contains(name) && !object[name].is_null() ? object[name].get<Value>() : otherwise;
}

// What is not known is null in a decision.
std::string name_of(const json& value) { return value.is_null() ? "unknown" : value.is_string() ? value.get<std::string>() : value.dump(); }

std::uint64_t little_endian(const Bytes& bytes, std::size_t offset, int count) {
    std::uint64_t value = 0;
    for (int i = count; i-- > 0;) value = value << 8 | bytes.at(offset + i);
    return value;
}

Bytes decode_base64(const std::string& text) {
    static const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    Bytes bytes;
    std::uint32_t buffer = 0;
    int bits = 0;
    for (const char character : text.substr(0, text.find('='))) {
        buffer = buffer << 6 | static_cast<std::uint32_t>(digits.find(character));
        if ((bits += 6) >= 8) bytes.push_back(static_cast<std::uint8_t>(buffer >> (bits -= 8)));
    }
    return bytes;
}

struct Frame {
    std::string state = "unknown", content = "intact";
    std::vector<std::string> mapped_by;
};

// A process. Only one that runs a guest handles SIGBUS; all others end.
struct Task {
    std::string state = "running";
    json signals = json::array(), next_access = json::array();
};

// A virtual machine: the memory of its error sources, and what its vCPUs took.
struct Guest {
    std::string pid = "unknown", state = "running";
    json lost = json::array(), records = json::array(), exceptions = json::object(), exits = json::array();
    std::map<std::string, Bytes> error_sources;
};

// A name is a page frame number, process id, name of a guest or PCIe function.
struct Machine {
    int boots = 1;
    std::string state = "running", record = "none";
    std::map<std::string, Frame> frames;
    std::map<std::string, Task> tasks;
    std::map<std::string, Guest> guests;
    std::map<std::string, std::string> devices;
    std::vector<std::string> queue, log;

    Frame& frame(const json& pfn) { return frames[name_of(pfn)]; }
    Task& task(const json& pid) { return tasks[name_of(pid)]; }
    Guest& guest(const json& name) { return guests[name_of(name)]; }

    void end_process(const std::string& pid) {
        tasks[pid].state = "ended";
        for (auto& [name, guest] : guests)
            if (guest.pid == pid) guest.state = "stopped";
    }

    bool runs_guest(const std::string& pid) const {
        return std::any_of(guests.begin(), guests.end(), [&](const auto& item) { return item.second.pid == pid; });
    }
};

void to_json(json& to, const Frame& frame) { to = {{"state", frame.state}, {"content", frame.content}, {"mapped_by", frame.mapped_by}}; }

void to_json(json& to, const Task& task) { to = {{"state", task.state}, {"signals", task.signals}, {"next_access", task.next_access}}; }

void to_json(json& to, const Guest& guest) {
    to = {{"pid", guest.pid},         {"state", guest.state},           {"lost", guest.lost},
          {"records", guest.records}, {"exceptions", guest.exceptions}, {"exits", guest.exits}};
}

void to_json(json& to, const Machine& machine) {
    to = {{"boots", machine.boots},     {"state", machine.state}, {"record", machine.record},
          {"frames", machine.frames},   {"tasks", machine.tasks}, {"guests", machine.guests},
          {"devices", machine.devices}, {"queue", machine.queue}, {"log", machine.log}};
}

// Adds what the event says about the machine, and lets firmware write the record.
void prepare(Machine& machine, const json& event) {
    const json host = value_or(event, "host", json::object());
    const int page_size = value_or(host, "page_size", default_page_size);
    for (const json& page : value_or(host, "pages", json::array())) {
        Frame frame;
        frame.state = value_or(page, "poisoned", false) ? "poisoned" : page.at("state").get<std::string>();
        for (const json& mapping : value_or(page, "mappings", json::array())) frame.mapped_by.push_back(name_of(mapping.at("pid")));
        machine.frames.emplace(hex(number(page.at("physical_address")) / page_size), frame);
    }
    for (const json& task : value_or(host, "tasks", json::array())) machine.task(task.at("pid"));
    for (const json& vm : value_or(host, "vms", json::array())) {
        Guest guest;
        guest.pid = name_of(vm.at("pid"));
        machine.guests.emplace(name_of(vm.at("id")), guest);
    }
    machine.record = value_or(event, "status_block", json()).is_null() ? "none" : "written";
}

// ---- The plan ----------------------------------------------------------------------------------------------------------------------

// Applies the outcome of memory_failure() or soft_offline_page() to the page frame.
// A frame that was taken away before stays as it was, and so does one without a result.
void take_away(Machine& machine, const json& step, bool soft) {
    const auto queued = std::find(machine.queue.begin(), machine.queue.end(), name_of(step.at("pfn")));
    if (queued != machine.queue.end()) machine.queue.erase(queued);
    Frame& frame = machine.frame(step.at("pfn"));
    if (step.at("result") == "recovered") {
        frame = {"offline", soft ? "copied" : "lost", {}};
    } else if (!soft && !step.at("result").is_null() && frame.state != "offline") {
        frame.state = "poisoned";
    }
}

// A signal with the range of bytes that are lost: 2^lsb bytes, aligned to their number.
json signal_fields(const json& step) {
    json lost = nullptr;
    if (!step.at("address").is_null() && !step.at("lsb").is_null()) {
        const std::uint64_t length = std::uint64_t{1} << step.at("lsb").get<int>();
        lost = json::array({hex(number(step.at("address")) & ~(length - 1)), length});
    }
    return {{"tid", name_of(step.at("tid"))},
            {"signal", step.at("signal")},
            {"code", step.at("code")},
            {"address", step.at("address")},
            {"lost", lost},
            {"forced", step.at("forced")}};
}

void deliver(Machine& machine, const json& step) {
    const std::string pid = name_of(step.at("pid"));
    machine.task(step.at("pid")).signals.push_back(signal_fields(step));
    if (step.at("signal") == "SIGKILL" || !machine.runs_guest(pid)) machine.end_process(pid);
}

// Reads a record as the guest's driver does, and clears its block status, so that the source is free again.
// 20 bytes of status block (ACPI 6.5 18.3.2.7.1), 72 of data entry, then the memory section, address at offset 16 (UEFI 2.10 N.2.5).
json read_record(const std::string& notification, Bytes& memory) {
    const json record = {{"notification", notification},
                         {"bytes", 20 + little_endian(memory, 12, 4)},
                         {"physical_address", hex(little_endian(memory, 20 + 72 + 16, 8))}};
    std::fill_n(memory.begin(), 4, std::uint8_t{0});
    return record;
}

void record_guest_error(Machine& machine, const json& step) {
    Guest& guest = machine.guest(step.at("vm"));
    const std::string notification = step.at("notification");
    Bytes& memory = guest.error_sources.try_emplace(notification, error_source_bytes).first->second;
    const Bytes block = decode_base64(step.at("status_block"));
    std::copy_n(block.begin(), std::min(block.size(), memory.size()), memory.begin());
    guest.records.push_back(read_record(notification, memory));
}

void take_exception(Machine& machine, const json& step, const json& taken) {
    machine.guest(step.at("vm")).exceptions[name_of(step.at("vcpu"))].push_back(taken);
}

// The first bytes of struct kvm_vcpu_events: serror_pending, serror_has_esr, 6 more, serror_esr.
void inject_serror(Machine& machine, const json& step) {
    const Bytes events = decode_base64(step.at("vcpu_events"));
    take_exception(machine, step,
                   {{"exception", "serror"},
                    {"esr", step.at("guest_esr")},
                    {"pending", events.at(0)},
                    {"has_esr", events.at(1)},
                    {"vsesr", hex(little_endian(events, 8, 8))}});
}

void panic(Machine& machine, const json& step) {
    const json& seconds = step.at("reboots_after_s");
    const std::string reboot = seconds.is_null() ? "no reboot" : "reboot after " + seconds.dump() + " s";
    machine.log.push_back("panic: " + step.at("message").get<std::string>() + " (" + step.at("cause").get<std::string>() + ", " + reboot +
                          ")");
    machine.state = "panicked";
}

// What the simulator does for each kind of step.
const std::map<std::string, std::function<void(Machine&, const json&)>> handlers{
    {"log", [](Machine& machine, const json& step) { machine.log.push_back(step.at("what")); }},
    {"reject", [](Machine& machine, const json& step) { machine.log.push_back("rejected: " + step.at("why").get<std::string>()); }},
    {"acknowledge", [](Machine& machine, const json& step) { machine.record = "acknowledged " + step.at("when").get<std::string>(); }},
    {"queue_memory_failure",
     [](Machine& machine, const json& step) {
         machine.queue.push_back(name_of(step.at("pfn")));
         const json& flags = step.at("flags");
         if (std::find(flags.begin(), flags.end(), "soft_offline") == flags.end()) machine.frame(step.at("pfn")).content = "lost";
     }},
    {"memory_failure", [](Machine& machine, const json& step) { take_away(machine, step, false); }},
    {"soft_offline", [](Machine& machine, const json& step) { take_away(machine, step, true); }},
    {"signal", deliver},
    {"oops",
     [](Machine& machine, const json& step) {
         machine.log.push_back("oops: " + step.at("cause").get<std::string>());
         if (step.at("context") == "interrupted_thread") machine.end_process(name_of(step.at("pid")));
     }},
    {"recover_pcie",
     [](Machine& machine, const json& step) {
         machine.devices[step.at("device")] =
             step.at("severity").get<std::string>() + ", " + (step.at("recovers").get<bool>() ? "recovery queued" : "logged");
     }},
    {"report_cxl", [](Machine& machine, const json& step) { machine.log.push_back("cxl event: " + step.at("event").get<std::string>()); }},
    {"translate",
     [](Machine& machine, const json& step) {
         for (const json& range : step.at("ranges"))
             machine.guest(step.at("vm")).lost.push_back({{"ipa", range.at("ipa")}, {"length", range.at("length")}});
     }},
    {"record_guest_error", record_guest_error},
    {"inject_abort",
     [](Machine& machine, const json& step) { take_exception(machine, step, {{"exception", "abort"}, {"esr", step.at("guest_esr")}}); }},
    {"inject_serror", inject_serror},
    {"exit_to_vmm",
     [](Machine& machine, const json& step) {
         machine.guest(step.at("vm"))
             .exits.push_back({{"vcpu", name_of(step.at("vcpu"))}, {"exit", step.at("exit")}, {"fields", step.at("fields")}});
     }},
    {"vmm_exits",
     [](Machine& machine, const json& step) {
         Guest& guest = machine.guest(step.at("vm"));
         machine.log.push_back("vmm exits: " + step.at("why").get<std::string>());
         guest.state = "stopped";
         machine.end_process(guest.pid);
     }},
    {"panic", panic},
};

void apply(Machine& machine, const json& step) {
    const std::string kind = step.at("kind");
    if (const auto found = handlers.find(kind); found != handlers.end()) {
        found->second(machine, step);
    } else {  // of a newer service
        machine.log.push_back("step `" + kind + "` is not known to this simulator");
    }
}

// Applies a whole decision; a machine that had panicked has rebooted by now.
void apply_decision(Machine& machine, const json& event, const json& decision) {
    if (machine.state == "panicked") {
        const int boots = machine.boots + 1;
        machine = Machine{};
        machine.boots = boots;
    }
    prepare(machine, event);
    for (const json& step : decision.at("plan")) apply(machine, step);
    for (auto& [pid, task] : machine.tasks) task.next_access = json::array();
    for (const json& step : decision.at("next_access"))
        if (step.at("kind") == "signal") machine.task(step.at("pid")).next_access.push_back(signal_fields(step));
}

// ---- Events in, machines out -------------------------------------------------------------------------------------------------------

int run(const std::string& url, std::istream& events) {
    Service service(url);
    std::map<std::string, Machine> machines;
    std::set<std::string> applied;
    bool refused = false;
    int place = 0;
    for (std::string line; std::getline(events, line);) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        const Response response = service.decide(line);
        std::cerr << "line " << ++place << ": ";
        if (response.status != 200 && response.status != 201) {
            std::cerr << explain(response) << '\n';
            refused = true;
            continue;
        }
        const json decision = json::parse(response.body), event = json::parse(line);
        std::cerr << decision.at("action").get<std::string>() << ", " << decision.at("certainty").get<std::string>() << ", "
                  << decision.at("plan").size() << " steps\n";
        if (!applied.insert(decision.at("id")).second) continue;  // the same event again: its plan was carried out
        apply_decision(machines[value_or(event, "source", std::string("machine"))], event, decision);
    }
    std::cout << json(machines).dump(2) << '\n';
    return refused ? 2 : 0;
}

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: apply_plan URL EVENTS.ndjson\n";
        return 2;
    }
    std::ifstream events(arguments[2]);
    if (!events) {
        std::cerr << arguments[2] << ": cannot be read\n";
        return 2;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    try {
        return run(arguments[1], events);
    } catch (const std::exception& failure) {
        std::cerr << arguments[1] << ": " << failure.what() << '\n';
        return 1;
    }
}
