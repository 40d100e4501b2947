/* Stands before libc in the broker's process (LD_PRELOAD) and does what the page that it shares with `faults` says: one
 * call of one site fails or writes short, syncs are not done, what is written waits in a cache, the wall clock is off.
 *
 * A site is a call of one kind, on one kind of file below FAULTS_ROOT (digits of its path count as one), from one place in
 * the program: a hash of the nearest return addresses, taken relative to where the program is loaded. Every site that is met
 * is noted in the page with its number of calls. The layout of the page stands in faults/src/shim.rs too.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OPEN = 1, READ, WRITE, SYNC, TRUNCATE, ALLOCATE, RENAME, UNLINK, MKDIR, LIST };
enum { FAIL = 1, SHORT = 2 };
enum { SITES_MAX = 1024, FRAMES = 10, TOLD_APART = 5, STACK = 48 };

struct site {
  uint64_t hash, count;
  uint32_t op, pad;
  uint64_t frames[FRAMES];
  char class[152];
};

struct page {
  uint64_t magic;
  int64_t clock_offset_ns;
  uint64_t target; /* hash of the site that fails; 0: none */
  uint32_t nth;    /* which of its calls, from 1 on */
  uint32_t mode;
  int32_t error;
  uint32_t lie; /* syncs are not done */
  uint64_t seen, injected;
  uint32_t sites_used;
  uint32_t cached; /* nobody writes past the page cache */
  char reserved[256 - 64];
  struct site sites[SITES_MAX];
};

static volatile struct page *page;
static char root[4096];
static size_t root_length;
static uintptr_t base, end;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int busy;

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int find_program(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size, (void)data;
  base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    uintptr_t to = base + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    if (info->dlpi_phdr[i].p_type == PT_LOAD && to > end) end = to;
  }
  return 1; /* the first one is the program itself */
}

__attribute__((constructor)) static void start(void) {
  const char *control = getenv("FAULTS_CONTROL"), *below = getenv("FAULTS_ROOT");
  if (!control) return;
  /* Without it no file is ours: the clock is all that can be off, and no call costs more. */
  if (below) snprintf(root, sizeof root, "%s/", below);
  root_length = strlen(root);
  dl_iterate_phdr(find_program, NULL);
  void *warm[4];
  backtrace(warm, 4); /* loads the unwinder, which opens files */
  int fd = open(control, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (mapped != MAP_FAILED) page = mapped;
}

/* The kind of file that a path is, or nothing when it is none of ours. */
static int class_of(const char *path, char *class, size_t room) {
  if (!root_length || strncmp(path, root, root_length) != 0) return 0;
  size_t at = 0;
  for (const char *from = path + root_length; *from && *from != ' ' && at + 1 < room; from++) {
    int digit = *from >= '0' && *from <= '9';
    if (digit && at && class[at - 1] == '#') continue;
    class[at++] = digit ? '#' : *from;
  }
  class[at] = 0;
  return 1;
}

static uint64_t mix(uint64_t hash, uint64_t word) {
  hash ^= word + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
  return hash * 0xff51afd7ed558ccdu;
}

/* Notes the call; says whether it is the one that goes wrong, and how. */
static int wrong(uint32_t op, const char *path) {
  struct site site = {.op = op};
  if (!page || busy || !class_of(path, site.class, sizeof site.class)) return 0;
  busy = 1;
  void *stack[STACK];
  int depth = backtrace(stack, STACK), found = 0, how = 0;
  site.hash = mix(op, 1);
  for (const char *letter = site.class; *letter; letter++) site.hash = mix(site.hash, (uint64_t)*letter);
  for (int i = 0; i < depth && found < FRAMES; i++) {
    uintptr_t at = (uintptr_t)stack[i];
    if (at < base || at >= end) continue;
    site.frames[found++] = at - base;
    if (found <= TOLD_APART) site.hash = mix(site.hash, at - base);
  }
  if (!site.hash) site.hash = 1;
  pthread_mutex_lock(&lock);
  volatile struct site *sites = page->sites;
  uint32_t used = page->sites_used, i = 0;
  while (i < used && sites[i].hash != site.hash) i++;
  if (i == used && used < SITES_MAX) {
    memcpy((void *)&sites[i], &site, sizeof site);
    page->sites_used = used + 1;
  }
  if (i < SITES_MAX) sites[i].count++;
  if (page->target == site.hash && ++page->seen == page->nth) {
    how = (int)page->mode;
    page->injected++;
  }
  pthread_mutex_unlock(&lock);
  busy = 0;
  if (how == FAIL) errno = page->error;
  return how;
}

/* As `wrong`, for a call on an open file. */
static int wrong_fd(uint32_t op, int fd) {
  if (!page || !root_length || busy) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  int before = errno;
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = before;
  if (length <= 0) return 0;
  path[length] = 0;
  return wrong(op, path);
}

static size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

/* Of a vector about half of the bytes; its first slice alone says how many. */
static ssize_t write_half(int fd, const struct iovec *slices, int count) {
  size_t all = 0;
  for (int i = 0; i < count; i++) all += slices[i].iov_len;
  size_t bytes = half(all), done = 0;
  char *copy = malloc(bytes ? bytes : 1);
  for (int i = 0; i < count && done < bytes; i++) {
    size_t part = slices[i].iov_len < bytes - done ? slices[i].iov_len : bytes - done;
    memcpy(copy + done, slices[i].iov_base, part);
    done += part;
  }
  REAL(write);
  ssize_t written = real(fd, copy, bytes);
  free(copy);
  return written;
}

#define OPENING(name) \
  int name(const char *path, int flags, ...) { \
    va_list more; \
    va_start(more, flags); \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more); \
    REAL(name); \
    if (page && page->cached && strncmp(path, root, root_length) == 0) flags &= ~O_DIRECT; \
    return wrong(OPEN, path) == FAIL ? -1 : real(path, flags, mode); \
  }
OPENING(open)
OPENING(open64)

ssize_t write(int fd, const void *bytes, size_t count) {
  REAL(write);
  int how = wrong_fd(WRITE, fd);
  return how == FAIL ? -1 : real(fd, bytes, how == SHORT ? half(count) : count);
}

ssize_t writev(int fd, const struct iovec *slices, int count) {
  REAL(writev);
  int how = wrong_fd(WRITE, fd);
  return how == FAIL ? -1 : how == SHORT ? write_half(fd, slices, count) : real(fd, slices, count);
}

#define WRITING_AT(name, offset_type) \
  ssize_t name(int fd, const void *bytes, size_t count, offset_type offset) { \
    REAL(name); \
    int how = wrong_fd(WRITE, fd); \
    return how == FAIL ? -1 : real(fd, bytes, how == SHORT ? half(count) : count, offset); \
  }
WRITING_AT(pwrite, off_t)
WRITING_AT(pwrite64, off64_t)

ssize_t read(int fd, void *bytes, size_t count) {
  REAL(read);
  int how = wrong_fd(READ, fd);
  return how == FAIL ? -1 : real(fd, bytes, how == SHORT ? half(count) : count);
}

#define READING_AT(name, offset_type) \
  ssize_t name(int fd, void *bytes, size_t count, offset_type offset) { \
    REAL(name); \
    int how = wrong_fd(READ, fd); \
    return how == FAIL ? -1 : real(fd, bytes, how == SHORT ? half(count) : count, offset); \
  }
READING_AT(pread, off_t)
READING_AT(pread64, off64_t)

#define SYNCING(name) \
  int name(int fd) { \
    REAL(name); \
    if (wrong_fd(SYNC, fd) == FAIL) return -1; \
    return page && page->lie ? 0 : real(fd); \
  }
SYNCING(fsync)
SYNCING(fdatasync)

#define TRUNCATING(name, offset_type) \
  int name(int fd, offset_type length) { \
    REAL(name); \
    return wrong_fd(TRUNCATE, fd) == FAIL ? -1 : real(fd, length); \
  }
TRUNCATING(ftruncate, off_t)
TRUNCATING(ftruncate64, off64_t)

#define ALLOCATING(name, offset_type) \
  int name(int fd, int mode, offset_type offset, offset_type length) { \
    REAL(name); \
    return wrong_fd(ALLOCATE, fd) == FAIL ? -1 : real(fd, mode, offset, length); \
  }
ALLOCATING(fallocate, off_t)
ALLOCATING(fallocate64, off64_t)

int rename(const char *from, const char *to) {
  REAL(rename);
  return wrong(RENAME, to) == FAIL ? -1 : real(from, to);
}

int unlink(const char *path) {
  REAL(unlink);
  return wrong(UNLINK, path) == FAIL ? -1 : real(path);
}

int rmdir(const char *path) {
  REAL(rmdir);
  return wrong(UNLINK, path) == FAIL ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  return wrong(MKDIR, path) == FAIL ? -1 : real(path, mode);
}

DIR *opendir(const char *path) {
  REAL(opendir);
  return wrong(LIST, path) == FAIL ? NULL : real(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  REAL(clock_gettime);
  int done = real(clock, now);
  if (done == 0 && page && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + page->clock_offset_ns;
    if (ns < 0) ns = 0;
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
  }
  return done;
}
