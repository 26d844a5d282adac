// Threads that wait for work, and items of work that they share.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ase {

// A pool of `size` threads, including the caller's. A forked process starts new threads, because
// threads do not survive a fork.
class Pool {
public:
    explicit Pool(int size);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }

    // Run task(thread) in all threads, and wait until all are done. Tasks must not throw.
    void run(const std::function<void(int)>& task);

    // Within a task: wait until all threads have called this.
    void barrier();

private:
    struct Shared;
    void start();
    int size_;
    int64_t process_ = 0;
    std::unique_ptr<Shared> shared_;
};

// Items 0 to n - 1, taken by threads: each thread takes from its own part first, so that what it
// has computed stays in its cache, then from the parts of other threads.
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
