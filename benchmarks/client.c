/*
 * The measured clients that no standard tool is small enough for: what a program costs here is
 * almost only what the kernel and the file system do for it.
 *
 *     client stat DIRECTORY LIST        lstat every path of LIST; prints found and missing
 *     client read DIRECTORY LIST        open, read to the end, close every path of LIST
 *     client sequential FILE            read one file from start to end in 128 KiB steps
 *     client preread PATH...            read every file below PATH, so that it is in the page cache
 *
 * LIST has one path relative to DIRECTORY per line. A path of `stat` may be missing, any other
 * failure ends the program with status 1.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_BYTES (128 * 1024)
#define DESCRIPTORS 32

static char buffer[STEP_BYTES];

static _Noreturn void die(const char *what, const char *which)
{
    fprintf(stderr, "client: cannot %s %s: %s\n", what, which, strerror(errno));
    exit(1);
}

static long long read_file(int directory, const char *path)
{
    long long total = 0;
    ssize_t got;
    int fd = openat(directory, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("open", path);
    while ((got = read(fd, buffer, sizeof(buffer))) > 0)
        total += got;
    if (got < 0)
        die("read", path);
    close(fd);
    return total;
}

static char *read_list(const char *path)
{
    struct stat status;
    FILE *file = fopen(path, "rb");
    if (file == NULL || fstat(fileno(file), &status) != 0)
        die("read", path);
    char *text = calloc((size_t)status.st_size + 1, 1);
    if (text == NULL || fread(text, 1, (size_t)status.st_size, file) != (size_t)status.st_size)
        die("read", path);
    fclose(file);
    return text;
}

static int open_directory(const char *path)
{
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        die("open", path);
    return directory;
}

static void stat_all(const char *root, const char *list)
{
    int directory = open_directory(root);
    long found = 0, missing = 0;
    char *rest = read_list(list);
    for (char *path; (path = strsep(&rest, "\n")) != NULL && *path != '\0';) {
        struct stat status;
        if (fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) == 0)
            found++;
        else if (errno == ENOENT)
            missing++;
        else
            die("stat", path);
    }
    printf("%ld found %ld missing\n", found, missing);
}

static void read_all(const char *root, const char *list)
{
    int directory = open_directory(root);
    long files = 0;
    long long bytes = 0;
    char *rest = read_list(list);
    for (char *path; (path = strsep(&rest, "\n")) != NULL && *path != '\0'; files++)
        bytes += read_file(directory, path);
    printf("%ld files %lld bytes\n", files, bytes);
}

static int preread_one(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)position;
    if (kind == FTW_F && S_ISREG(status->st_mode))
        read_file(AT_FDCWD, path);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "stat") == 0)
        stat_all(argv[2], argv[3]);
    else if (argc == 4 && strcmp(argv[1], "read") == 0)
        read_all(argv[2], argv[3]);
    else if (argc == 3 && strcmp(argv[1], "sequential") == 0)
        printf("%lld bytes\n", read_file(AT_FDCWD, argv[2]));
    else if (argc >= 3 && strcmp(argv[1], "preread") == 0) {
        for (int i = 2; i < argc; i++)
            if (nftw(argv[i], preread_one, DESCRIPTORS, FTW_PHYS) != 0)
                die("walk", argv[i]);
    } else {
        fprintf(stderr, "usage: client stat|read DIRECTORY LIST | sequential FILE | preread PATH\n");
        return 2;
    }
    return 0;
}
