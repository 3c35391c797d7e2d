/* Threads: leader and followers.
 *
 * One thread, the leader, reads the device and answers what is in memory, so that a busy client
 * meets a warm thread and no wake-up. Before a request that may wait it hands the lead on; when
 * there is nobody to take it, a thread is made; at the limit the request is queued instead, so that
 * the device is always read: a FORGET or an INTERRUPT never waits behind sixty downloads.
 *
 * Waking a follower costs more than most calls into the view take. So while such calls come in
 * quick succession (`find`), one follower looks every millisecond, and the leader goes away on its
 * word alone ("on loan"): if it is back before the follower looks, nobody was woken; if not, the
 * follower takes the lead.
 */
#include "engine.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    /* Interrupts read(2) on the device when serving ends. Harmless where nobody handles it. */
    KICK = SIGURG,
    SPARE_THREAD_SECONDS = 10,
};

static const int64_t MILLISECOND = 1000000;

static int start_thread(struct engine *e);

/* Whether threads may leave. Not while kernel threads of ours wait in notify.c for locks that
 * clients hold until we answer them. */
bool engine_is_over(struct engine *e)
{
    return atomic_load_explicit(&e->stopping, memory_order_relaxed) &&
           (atomic_load(&e->gone) || !atomic_load(&e->telling));
}

void engine_wake(struct engine *e)
{
    uint64_t one = 1;
    ssize_t ignored = write(e->wake_fd, &one, sizeof one);
    (void)ignored;              /* full means it is awake */
}

/* ---- who does what; all under pool.lock ----------------------------------------------------- */

/* How many threads are needed beyond those at work. A thread that was woken or started counts as
 * available until it has taken something, so nobody is counted on twice. */
static size_t wanted(const struct pool *p)
{
    return p->jobs + (p->has_leader ? 0 : 1);
}

static size_t available(const struct pool *p) { return p->idle + p->starting; }

/* See that somebody takes what is to be done. False: nobody is left for the last of it. */
static bool staff(struct engine *e)
{
    struct pool *p = &e->pool;
    if (available(p) < wanted(p) && p->threads < p->limit)
        start_thread(e);
    if (p->idle)
        pthread_cond_signal(&p->wake);
    return available(p) >= wanted(p);
}

static void push_job(struct pool *p, struct request *r)
{
    r->queued = NULL;
    *(p->last_job ? &p->last_job->queued : &p->first_job) = r;
    p->last_job = r;
    p->jobs++;
}

static struct request *pop_job(struct pool *p)
{
    struct request *r = p->first_job;
    if (r) {
        p->first_job = r->queued;
        if (!p->first_job)
            p->last_job = NULL;
        p->jobs--;
        r->queued = NULL;
    }
    return r;
}

/* Go away on loan if somebody watches: `watchers` come back under the lock and look. */
static bool borrow(struct pool *p, struct worker *w)
{
    int64_t at = monotonic_now();
    if (at - p->last_slow < 2 * MILLISECOND)
        p->busy_until = at + 10 * MILLISECOND;
    p->last_slow = at;
    if (!p->watchers || p->jobs)
        return false;
    p->on_loan = w;
    p->loan_since = at;
    return true;
}

void workers_submit(struct engine *e, struct request *r)
{
    pthread_mutex_lock(&e->pool.lock);
    push_job(&e->pool, r);
    staff(e);
    pthread_mutex_unlock(&e->pool.lock);
}

/* The leader is about to wait for the request. True: somebody else leads now. False: nobody could,
 * so the request is queued and the caller goes on reading. */
bool worker_hand_on(struct worker *w, struct request *r)
{
    struct engine *e = w->engine;
    struct pool *p = &e->pool;
    pthread_mutex_lock(&p->lock);
    if (borrow(p, w)) {
        w->in_read = false;
        pthread_mutex_unlock(&p->lock);
        return true;
    }
    p->has_leader = false;
    bool handed_on = staff(e);
    /* Alone and unable to make a thread, there is no choice but to wait ourselves. */
    if (!handed_on && p->threads > 1) {
        p->has_leader = true;
        push_job(p, r);
        COUNT(e, overloads);
    } else {
        handed_on = true;
        w->in_read = false;
    }
    pthread_mutex_unlock(&p->lock);
    return handed_on;
}

/* ---- work ----------------------------------------------------------------------------------- */

static void run_slow(struct worker *w, struct request *r)
{
    if (atomic_load(&w->engine->stopping))
        request_answer_error(w, r, ENOTCONN);
    else if (request_handle(w, r, true) == PARKED)
        return;                 /* not ours any more */
    request_free_slow(w->engine, r);
}

static void count_operation(struct engine *e, uint32_t opcode)
{
    COUNT(e, operations[opcode < COUNTERS ? opcode : OTHER_OPERATION]);
}

/* Read and handle one request. Returns whether the caller still leads. */
static bool lead(struct worker *w)
{
    struct engine *e = w->engine;
    ssize_t length = read(e->device, w->in, REQUEST_LIMIT);
    if (length <= 0) {
        int error = length < 0 ? errno : ENODEV;
        if (error == EAGAIN) {  /* somebody made it non-blocking */
            struct pollfd ready = {e->device, POLLIN, 0};
            poll(&ready, 1, 1000);
        } else if (error != EINTR && error != ENOENT) {
            /* ENODEV: unmounted. ENOENT above: the request went away while we read it. */
            atomic_store(&e->gone, true);
            engine_stop(e, error == ENODEV || error == ECONNABORTED ? 0 : error);
        }
        return true;
    }
    struct request r;
    if (!request_parse(w->in, (size_t)length, &r))
        return true;            /* not even a header: there is no one to answer */
    count_operation(e, r.opcode);
    if (request_handle(w, &r, false) != NEEDS_THREAD)
        return true;
    struct request *slow = request_make_slow(e, &r);
    if (!slow) {
        request_answer_error(w, &r, ENOMEM);
        return true;
    }
    if (!worker_hand_on(w, slow))
        return true;
    run_slow(w, slow);
    return false;
}

static void wait_until(struct pool *p, int64_t when)
{
    struct timespec until = {when / (1000 * MILLISECOND), when % (1000 * MILLISECOND)};
    pthread_cond_timedwait(&p->wake, &p->lock, &until);
}

/* Wait for something to do; false: this thread is spare. */
static bool idle(struct pool *p)
{
    int64_t from = monotonic_now();
    bool watches = p->on_loan || (p->busy_until > from && !p->watchers);
    bool may_leave = p->threads > p->base;
    p->idle++;
    if (watches) {
        p->watchers++;
        wait_until(p, from + MILLISECOND);
        p->watchers--;
    } else if (may_leave) {
        wait_until(p, from + SPARE_THREAD_SECONDS * 1000 * MILLISECOND);
    } else {
        pthread_cond_wait(&p->wake, &p->lock);
    }
    p->idle--;
    bool was_long = monotonic_now() - from >= SPARE_THREAD_SECONDS * 1000 * MILLISECOND;
    return !(was_long && may_leave && !wanted(p) && !p->on_loan && p->threads > p->base);
}

/* Whether the leader has been away for too long, or there is more to do than watching. */
static bool must_take_over(const struct pool *p)
{
    return p->on_loan && (p->jobs || monotonic_now() - p->loan_since > MILLISECOND / 2);
}

static void leave(struct worker *w)
{
    struct engine *e = w->engine;
    w->newer->older = w->older;
    w->older->newer = w->newer;
    if (w->out)
        munmap(w->out, REPLY_LIMIT);
    free(w->in);
    free(w);
    if (--e->pool.threads == 0)
        engine_wake(e);
}

/* With pool.lock, as the leader; comes back with it, as a follower. */
static void lead_until_relieved(struct worker *w)
{
    struct engine *e = w->engine;
    struct pool *p = &e->pool;
    for (bool leads = true; leads && !engine_is_over(e);) {
        w->in_read = true;
        pthread_mutex_unlock(&p->lock);
        do
            leads = lead(w);
        while (leads && !engine_is_over(e));
        pthread_mutex_lock(&p->lock);
        w->in_read = false;
        if (p->on_loan == w) {
            p->on_loan = NULL;
            leads = true;
        }
        if (leads && engine_is_over(e))
            p->has_leader = false;
    }
}

static void *work(void *argument)
{
    struct worker *w = argument;
    struct engine *e = w->engine;
    struct pool *p = &e->pool;
    pthread_setname_np(pthread_self(), "outcrop-fuse");
    pthread_mutex_lock(&p->lock);
    p->starting--;
    for (;;) {
        struct request *r;
        bool over = engine_is_over(e);
        if (!over && (!p->has_leader || must_take_over(p))) {
            p->has_leader = true;
            p->on_loan = NULL;
            if (p->jobs)
                staff(e);
            lead_until_relieved(w);
        } else if ((r = pop_job(p))) {
            pthread_mutex_unlock(&p->lock);
            run_slow(w, r);
            pthread_mutex_lock(&p->lock);
        } else if (over || !idle(p)) {
            break;
        }
    }
    pthread_mutex_unlock(&p->lock);
    hook_thread_ends(w);        /* may wait for the GIL */
    pthread_mutex_lock(&p->lock);
    leave(w);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Under pool.lock. */
static int start_thread(struct engine *e)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        return ENOMEM;
    w->engine = e;
    w->in = malloc(REQUEST_LIMIT);
    if (!w->in) {
        free(w);
        return ENOMEM;
    }
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, KICK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(w->in);
        free(w);
        return error;
    }
    pthread_detach(w->thread);
    w->older = e->pool.ends.older;
    w->newer = &e->pool.ends;
    w->older->newer = w;
    e->pool.ends.older = w;
    e->pool.threads++;
    e->pool.starting++;
    return 0;
}

/* ---- begin and end -------------------------------------------------------------------------- */

static void ignore_kick(int signal) { (void)signal; }

int workers_start(struct engine *e)
{
    struct sigaction action = {.sa_handler = ignore_kick};  /* no SA_RESTART: read() must return */
    sigemptyset(&action.sa_mask);
    if (sigaction(KICK, &action, NULL) < 0)
        return errno;
    pthread_mutex_lock(&e->pool.lock);
    int error = 0;
    for (size_t i = 0; i < e->pool.base && !error; i++)
        error = start_thread(e);
    if (e->pool.threads)
        error = 0;              /* one is enough to serve */
    pthread_mutex_unlock(&e->pool.lock);
    return error;
}

/* End serving: threads finish what they do and leave. Callable from anywhere. */
void engine_stop(struct engine *e, int failure)
{
    int none = 0;
    if (failure)
        atomic_compare_exchange_strong(&e->failure, &none, failure);
    atomic_store(&e->stopping, true);
    engine_wake(e);
}

/* Called again and again until all threads have left: a signal that comes between the check of
 * `stopping` and read() is lost. */
void workers_kick(struct engine *e)
{
    struct pool *p = &e->pool;
    pthread_mutex_lock(&p->lock);
    for (struct worker *w = p->ends.older; w != &p->ends; w = w->older)
        if (w->in_read)
            pthread_kill(w->thread, KICK);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}
