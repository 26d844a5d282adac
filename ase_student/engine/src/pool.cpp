#include "pool.h"

#include <algorithm>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

namespace ase {
namespace {

// Turns of a waiting loop, some tens of microseconds; after these a thread sleeps or yields.
constexpr int SPIN_TURNS = 2000;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

int64_t this_process() {
#if defined(_WIN32)
    return _getpid();
#else
    return getpid();
#endif
}

template <class Ready>
void wait_actively(Ready ready) {
    for (int turns = 0; !ready(); turns++) {
        if (turns < SPIN_TURNS) relax();
        else std::this_thread::yield();
    }
}

}  // namespace

struct Pool::Shared {
    std::vector<std::thread> threads;
    std::mutex mutex;
    std::condition_variable wake;
    const std::function<void(int)>* task = nullptr;
    std::atomic<int> round{0}, n_done{0}, n_arrived{0}, n_barriers{0};
    std::atomic<bool> stop{false};
    int size = 1;

    void work(int thread) {
        int seen = 0;
        for (;;) {
            for (int turns = 0; turns < SPIN_TURNS && round.load(std::memory_order_acquire) == seen;
                 turns++)
                relax();
            if (round.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex);
                wake.wait(lock, [&] { return round.load() != seen; });
            }
            seen = round.load(std::memory_order_acquire);
            if (stop.load()) return;
            (*task)(thread);
            n_done.fetch_add(1, std::memory_order_release);
        }
    }
};

Pool::Pool(int size) : size_(size) {}

void Pool::start() {
    // After a fork the old threads are gone; their objects can neither be joined nor freed.
    if (shared_) shared_.release();
    shared_ = std::make_unique<Shared>();
    shared_->size = size_;
    process_ = this_process();
    Shared* shared = shared_.get();
    for (int thread = 1; thread < size_; thread++)
        shared->threads.emplace_back([shared, thread] { shared->work(thread); });
}

Pool::~Pool() {
    if (!shared_) return;
    if (process_ != this_process()) {
        shared_.release();
        return;
    }
    {
        std::lock_guard<std::mutex> lock(shared_->mutex);
        shared_->stop = true;
        shared_->round++;
    }
    shared_->wake.notify_all();
    for (std::thread& thread : shared_->threads) thread.join();
}

void Pool::run(const std::function<void(int)>& task) {
    if (size_ == 1) {
        task(0);
        return;
    }
    if (!shared_ || process_ != this_process()) start();
    Shared& shared = *shared_;
    shared.task = &task;
    shared.n_done.store(0);
    {
        std::lock_guard<std::mutex> lock(shared.mutex);
        shared.round.fetch_add(1, std::memory_order_release);
    }
    shared.wake.notify_all();
    task(0);
    wait_actively([&] { return shared.n_done.load(std::memory_order_acquire) == size_ - 1; });
}

void Pool::barrier() {
    if (size_ == 1) return;
    Shared& shared = *shared_;
    const int passed = shared.n_barriers.load(std::memory_order_acquire);
    if (shared.n_arrived.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
        shared.n_arrived.store(0, std::memory_order_relaxed);
        shared.n_barriers.store(passed + 1, std::memory_order_release);
        return;
    }
    wait_actively([&] { return shared.n_barriers.load(std::memory_order_acquire) != passed; });
}

void Items::reset(int64_t n) {
    const int64_t n_parts = (int64_t)parts_.size();
    for (int64_t part = 0; part < n_parts; part++) {
        parts_[part].next.store(n * part / n_parts, std::memory_order_relaxed);
        parts_[part].end = n * (part + 1) / n_parts;
    }
}

int64_t Items::take(int thread) {
    const int n_parts = (int)parts_.size();
    for (int q = 0; q < n_parts; q++) {
        Part& part = parts_[(thread + q) % n_parts];
        if (part.next.load(std::memory_order_relaxed) >= part.end) continue;
        const int64_t item = part.next.fetch_add(1, std::memory_order_relaxed);
        if (item < part.end) return item;
    }
    return -1;
}

}  // namespace ase
