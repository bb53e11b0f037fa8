/* The one program that every supervisor runs.
 *
 *   probe MARKS NAME hold            stays until it is killed
 *   probe MARKS NAME crash           exits with 1 at once
 *   probe MARKS NAME helper          leaves a double-forked helper in a session of its own, and stays
 *   probe MARKS NAME flood GO LINES EACH   once the file GO exists, writes LINES lines of 100 bytes,
 *                                    EACH of them with one write(), and stays
 *   probe MARKS NAME count DIR       a numbered line every 5 ms; DIR/PID holds how many are written
 *
 * Each appends "NAME PID NANOSECONDS EVENT" to MARKS; its first act is to read the clock.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, MOST = 64 };

static const char *marks, *name;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void mark(long long at, const char *event) {
    char text[512];
    int length = snprintf(text, sizeof text, "%s %d %lld %s\n", name, getpid(), at, event);
    int fd = open(marks, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, text, length) != length) _exit(99);
    close(fd);
}

static void stay(void) {
    for (;;) pause();
}

static int put(const char *data, size_t length) {
    while (length > 0) {
        ssize_t n = write(1, data, length);
        if (n < 0) return -1;
        data += n;
        length -= n;
    }
    return 0;
}

static void flood(const char *go, long lines, int each) {
    static char block[MOST * LINE];
    int pid = getpid();
    if (each < 1 || each > MOST) _exit(98);
    memset(block, 'x', sizeof block);
    while (access(go, F_OK) != 0) usleep(1000);
    mark(now(), "begin");
    for (long line = 1; line <= lines;) {
        int n = 0;
        for (; n < each && line <= lines; n++, line++) {
            char *at = block + n * LINE;
            int length = sprintf(at, "@%d:%010ld@", pid, line);
            at[length] = 'x';
            at[LINE - 1] = '\n';
        }
        if (put(block, (size_t)n * LINE) < 0) _exit(97);
    }
    mark(now(), "end");
}

static void count(const char *folder) {
    char path[512], line[64];
    snprintf(path, sizeof path, "%s/%d", folder, getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || ftruncate(fd, 8) < 0) _exit(96);
    volatile long long *written = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (written == MAP_FAILED) _exit(95);
    for (;;) {
        int length = sprintf(line, "@%d:%010lld@\n", getpid(), *written + 1);
        if (put(line, length) < 0) _exit(94);
        *written += 1;
        usleep(5000);
    }
}

int main(int argc, char **argv) {
    long long first = now();
    if (argc < 4) return 64;
    marks = argv[1];
    name = argv[2];
    const char *mode = argv[3];
    mark(first, "start");
    if (!strcmp(mode, "crash")) return 1;
    if (!strcmp(mode, "helper") && fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        mark(now(), "helper");
    }
    if (!strcmp(mode, "flood") && argc == 7) flood(argv[4], atol(argv[5]), atoi(argv[6]));
    if (!strcmp(mode, "count") && argc == 5) count(argv[4]);
    stay();
}
