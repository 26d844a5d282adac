// Threads that wait for work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ase {

// Of `size` threads, the caller's included. A process that was forked makes new ones: threads do
// not survive a fork.
class Pool {
public:
    explicit Pool(int size);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }

    // Run task(thread) in all threads, and wait until all are done. Tasks must not throw.
    void run(const std::function<void(int)>& task);

    // Within a task: wait until all threads have come here.
    void barrier();

private:
    struct Shared;
    void start();
    int size_;
    int64_t process_ = 0;
    std::unique_ptr<Shared> shared_;
};

// Items 0 to n - 1, taken by threads: each from its own part first, so that what one has computed
// stays in its cache, then from the others'.
class Items {
public:
    explicit Items(int n_threads) : parts_(n_threads) {}
    void reset(int64_t n);
    // The next item for a thread, -1 if none is left.
    int64_t take(int thread);

private:
    struct alignas(64) Part {
        std::atomic<int64_t> next{0};
        int64_t end = 0;
    };
    std::vector<Part> parts_;
};

}  // namespace ase
