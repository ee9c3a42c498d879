/* Makes the n-th change of a file under a folder named *.store fail, or ends the process there: loaded with LD_PRELOAD,
   armed by the test. Counted: writes, truncations, syncs, renames, removals and creations. The first write that fails, or
   the last before the end, is half done. It also writes down all changes, where asked to: a test plays power cuts from that. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long seen, first, last;
static int code;

/* error: an errno, or 0 for none, or -1 to be killed */
void faults_arm(long nth, long count, int error) { seen = 0, first = nth, last = nth + count - 1, code = error; }
long faults_seen(void) { return seen; }

static int is_path_ours(const char *path) { return path && strstr(path, ".store/"); }

static int is_ours(int fd) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    size_t n = strlen(path);
    return strstr(path, ".store/") || (n > 6 && !strcmp(path + n - 6, ".store"));
}

/* 0: let it pass; 1: the first that fails; 2: a later one. */
static int fails(int half_first) {
    if (!code) return 0;
    long now = __sync_add_and_fetch(&seen, 1);
    if (now < first || now > last) return 0;
    if (code < 0 && !half_first) kill(getpid(), SIGKILL);
    return now == first ? 1 : 2;
}

static int record = -1;

struct head { char kind; int path_size; long offset, size; };

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define REFUSE { errno = code; return -1; }

/* Where to write down each change: a struct head, the path, the data. */
void changes_record(int fd) { record = fd; }

static void note(char kind, const char *path, long offset, const void *data, long size) {
    struct head head = {kind, (int)strlen(path), offset, size};
    if (REAL(write)(record, &head, sizeof head) < 0 || REAL(write)(record, path, head.path_size) < 0) _exit(3);
    if (data && REAL(write)(record, data, size) < 0) _exit(3);
}

void changes_mark(long number) { note('!', "", number, 0, 0); }

static void note_fd(char kind, int fd, long offset, const void *data, long size) {
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(name, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    note(kind, path, offset, data, size);
}

#define NOTE_FD(...) if (record >= 0 && is_ours(fd)) note_fd(__VA_ARGS__)

static ssize_t half(int fd, const void *data, size_t size, off_t at, int has_offset) {
    size /= 2;
    if (code < 0) {
        if (has_offset) REAL(pwrite)(fd, data, size, at); else REAL(write)(fd, data, size);
        kill(getpid(), SIGKILL);
    }
    if (!size) REFUSE
    last++; /* the rest of this write is what fails */
    return has_offset ? REAL(pwrite)(fd, data, size, at) : REAL(write)(fd, data, size);
}

ssize_t write(int fd, const void *data, size_t size) {
    int how = code && is_ours(fd) ? fails(1) : 0;
    if (how == 1) return half(fd, data, size, 0, 0);
    if (how) REFUSE
    NOTE_FD('w', fd, lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR), data, size);
    return REAL(write)(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    int how = code && is_ours(fd) ? fails(1) : 0;
    if (how == 1) return half(fd, data, size, at, 1);
    if (how) REFUSE
    NOTE_FD('w', fd, at, data, size);
    return REAL(pwrite)(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

#define BY_FD(name) \
    int name(int fd) { if (code && is_ours(fd) && fails(0)) REFUSE NOTE_FD('s', fd, 0, 0, 0); return REAL(name)(fd); }
BY_FD(fsync)
BY_FD(fdatasync)

int ftruncate(int fd, off_t size) {
    if (code && is_ours(fd) && fails(0)) REFUSE
    NOTE_FD('t', fd, size, 0, 0);
    return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
int rename(const char *from, const char *to) {
    if (is_path_ours(to) && fails(0)) REFUSE
    if (record >= 0 && is_path_ours(to)) note('r', from, 0, to, strlen(to));
    return REAL(rename)(from, to);
}

int unlink(const char *path) {
    if (is_path_ours(path) && fails(0)) REFUSE
    if (record >= 0 && is_path_ours(path)) note('u', path, 0, 0, 0);
    return REAL(unlink)(path);
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    if (flags & O_CREAT && is_path_ours(path) && access(path, F_OK) && fails(0)) REFUSE
    int is_new = flags & O_CREAT && access(path, F_OK);
    int fd = real(path, flags, mode);
    if (record >= 0 && fd >= 0 && is_path_ours(path) && (is_new || flags & O_TRUNC)) note_fd(is_new ? 'c' : 't', fd, 0, 0, 0);
    return fd;
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, int); va_end(rest); \
        return opened(REAL(name), path, flags, mode); }
OPENS(open)
OPENS(open64)
