/*
 * A disk for tests, preloaded into a program: it makes fsync and fdatasync slow, lets them fail, or
 * keeps what was synced; or it is full. And a clock. Environment variables say how:
 *
 *   CLOCK_AHEAD   a file with the number of seconds that the clock is ahead; none: it is right
 *   DISK_FULL     while this file exists, each write to a file fails with ENOSPC
 *   DISK_DELAY    how many milliseconds longer each sync takes
 *   DISK_FAILS    while this file exists, each sync fails with EIO
 *   DISK_SKIPS    while this file exists, a sync does nothing, and reports success
 *   DISK_COPIES   a directory that holds each file as it was at its last sync: what is left after a
 *                 power cut at least. Several programs may share it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef int (*Sync)(int);

/* Reads from `fd` itself: closing another descriptor of a database would release its POSIX locks. */
static void copy(int fd, const char *path) {
  static char block[1 << 20];
  int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  ssize_t length;
  for (off_t at = 0; (length = pread(fd, block, sizeof block, at)) > 0; at += length)
    if (write(out, block, length) != length) abort();
  if (length < 0 || close(out)) abort();
}

/* What is copied before the sync is on disk after it. */
static int syncAndKeep(Sync sync, int fd, const char *copies) {
  char link[64], path[PATH_MAX], lock[PATH_MAX], made[PATH_MAX], kept[PATH_MAX];
  struct stat file;
  if (fstat(fd, &file) || !S_ISREG(file.st_mode)) return sync(fd);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) abort();
  path[length] = 0;
  snprintf(lock, sizeof lock, "%s/lock", copies);
  snprintf(made, sizeof made, "%s/made", copies);
  snprintf(kept, sizeof kept, "%s/%s", copies, basename(path));
  int locked = open(lock, O_RDWR | O_CREAT, 0644);
  if (flock(locked, LOCK_EX)) abort();
  copy(fd, made);
  int result = sync(fd);
  if (result == 0 && rename(made, kept)) abort();
  close(locked);
  return result;
}

static int exists(const char *path) { return path && access(path, F_OK) == 0; }

static int syncAs(const char *name, int fd) {
  Sync sync = (Sync)dlsym(RTLD_NEXT, name);
  const char *delay = getenv("DISK_DELAY"), *copies = getenv("DISK_COPIES");
  if (delay) usleep(1000 * atoi(delay));
  if (exists(getenv("DISK_FAILS"))) return errno = EIO, -1;
  if (exists(getenv("DISK_SKIPS"))) return 0;
  return copies ? syncAndKeep(sync, fd, copies) : sync(fd);
}

int fsync(int fd) { return syncAs("fsync", fd); }
int fdatasync(int fd) { return syncAs("fdatasync", fd); }

static int isFull(int fd) {
  struct stat file;
  return exists(getenv("DISK_FULL")) && fstat(fd, &file) == 0 && S_ISREG(file.st_mode);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  if (isFull(fd)) return errno = ENOSPC, -1;
  return syscall(SYS_write, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  if (isFull(fd)) return errno = ENOSPC, -1;
  return syscall(SYS_pwrite64, fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  return pwrite(fd, bytes, count, at);
}

static long ahead(void) {
  const char *path = getenv("CLOCK_AHEAD");
  int fd = path ? open(path, O_RDONLY) : -1;
  if (fd < 0) return 0;
  char text[16] = "";
  if (read(fd, text, sizeof text - 1) < 0) abort();
  close(fd);
  return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *time) {
  int result = syscall(SYS_clock_gettime, id, time);
  if (result == 0 && id == CLOCK_REALTIME) time->tv_sec += ahead();
  return result;
}

int gettimeofday(struct timeval *time, void *zone) {
  int result = syscall(SYS_gettimeofday, time, zone);
  if (result == 0) time->tv_sec += ahead();
  return result;
}
