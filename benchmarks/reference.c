/*
 * The reference server: what a file system client of the classic kind does at its best.
 *
 * libfuse 3 low-level, multi-threaded, one cloned /dev/fuse descriptor per thread. All metadata is
 * in memory before the mount. The protocol is used the way the classic client uses it: one LOOKUP
 * (and, when asked, one GETATTR) per entry, a directory's listing built in OPENDIR without
 * readdirplus, negative entries, long timeouts, OPEN and RELEASE for every file, the page cache
 * kept between opens, pread + reply_buf from a directory of objects on the local disk, and ENODATA
 * to every extended attribute. It fetches, checks and locks nothing: it is faster than the client
 * it stands for.
 *
 *     reference LISTING OBJECTS MOUNTPOINT
 *
 * LISTING has one line for each entry but the root, parents before children, separated by tabs:
 *     d|f|l  MODE(octal)  SIZE  MTIME  OBJECT or link target or "-"  PATH
 * OBJECTS is the directory below which OBJECT names a regular file.
 *
 * It stays in the foreground, says "ready" on stdout once mounted, and unmounts on SIGTERM, SIGINT,
 * SIGHUP and when its parent dies.
 */
#define FUSE_USE_VERSION 312
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_SECONDS 3600.0

struct node {
    const char *name;
    const char *reference; /* object below the objects directory, or the target of a symlink */
    size_t parent;
    size_t first_child; /* 0: none (the root is nobody's child) */
    size_t next_sibling;
    mode_t mode;
    nlink_t links;
    off_t size;
    time_t mtime;
};

struct listing {
    size_t length;
    char bytes[];
};

static struct node *nodes; /* nodes[0] is the root; inode = index + 1 */
static size_t node_count;
static size_t *slots; /* open addressing over (parent, name): index of a node, 0 = free */
static size_t slot_mask;
static uid_t owner;
static gid_t group;
static int objects_fd = -1;

static void die(const char *what, const char *which)
{
    fprintf(stderr, "reference: %s %s: %s\n", what, which, strerror(errno));
    exit(1);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        die("cannot allocate", "memory");
    return memory;
}

/* --- the tree in memory ------------------------------------------------------------------- */

static size_t hash(size_t parent, const char *name, size_t length)
{
    uint64_t value = 0xcbf29ce484222325ULL ^ (parent * 0x9e3779b97f4a7c15ULL);
    for (size_t i = 0; i < length; i++)
        value = (value ^ (unsigned char)name[i]) * 0x100000001b3ULL;
    return (size_t)(value ^ (value >> 29));
}

static size_t find_child(size_t parent, const char *name, size_t length)
{
    for (size_t slot = hash(parent, name, length) & slot_mask;; slot = (slot + 1) & slot_mask) {
        size_t index = slots[slot];
        if (index == 0)
            return 0;
        const struct node *node = &nodes[index];
        if (node->parent == parent && strncmp(node->name, name, length) == 0
            && node->name[length] == '\0')
            return index;
    }
}

static void remember_child(size_t parent, size_t index)
{
    struct node *node = &nodes[index];
    size_t slot = hash(parent, node->name, strlen(node->name)) & slot_mask;
    while (slots[slot] != 0)
        slot = (slot + 1) & slot_mask;
    slots[slot] = index;
    node->parent = parent;
    node->next_sibling = nodes[parent].first_child;
    nodes[parent].first_child = index;
}

static size_t find_parent(char *path, char **name)
{
    size_t parent = 0;
    char *rest = path;
    for (char *slash; (slash = strchr(rest, '/')) != NULL; rest = slash + 1) {
        parent = find_child(parent, rest, (size_t)(slash - rest));
        if (parent == 0) {
            errno = ENOENT;
            die("no parent in the listing for", path);
        }
    }
    *name = rest;
    return parent;
}

static void add_entry(char *line, size_t index)
{
    char *fields[6];
    char *rest = line;
    for (int i = 0; i < 6; i++) {
        fields[i] = i < 5 ? strsep(&rest, "\t") : rest;
        if (fields[i] == NULL || (i < 5 && rest == NULL)) {
            errno = EINVAL;
            die("not an entry:", line);
        }
    }
    struct node *node = &nodes[index];
    mode_t kind = fields[0][0] == 'd' ? S_IFDIR : fields[0][0] == 'l' ? S_IFLNK : S_IFREG;
    char *name;
    size_t parent = find_parent(fields[5], &name);
    node->name = name;
    node->mode = kind | (mode_t)strtoul(fields[1], NULL, 8);
    node->size = (off_t)strtoll(fields[2], NULL, 10);
    node->mtime = (time_t)strtoll(fields[3], NULL, 10);
    node->reference = fields[4];
    node->links = kind == S_IFDIR ? 2 : 1;
    if (kind == S_IFDIR)
        nodes[parent].links++;
    remember_child(parent, index);
}

static char *read_whole(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    struct stat status;
    if (file == NULL || fstat(fileno(file), &status) != 0)
        die("cannot read", path);
    *length = (size_t)status.st_size;
    char *text = allocate(*length + 1, 1); /* stays: the names point into it */
    if (fread(text, 1, *length, file) != *length)
        die("cannot read", path);
    fclose(file);
    return text;
}

static void load(const char *path)
{
    size_t length;
    char *text = read_whole(path, &length);
    size_t lines = 0;
    for (size_t i = 0; i < length; i++)
        lines += text[i] == '\n';
    for (slot_mask = 16; slot_mask < 2 * lines; slot_mask *= 2)
        ;
    slots = allocate(slot_mask, sizeof(*slots));
    slot_mask--;
    nodes = allocate(lines + 1, sizeof(*nodes));
    nodes[0] =
        (struct node){ .name = "", .mode = S_IFDIR | 0755, .links = 2, .mtime = time(NULL) };
    char *rest = text;
    for (node_count = 1; node_count <= lines; node_count++)
        add_entry(strsep(&rest, "\n"), node_count);
}

static struct node *node_of(fuse_ino_t inode)
{
    return inode >= 1 && inode <= node_count ? &nodes[inode - 1] : NULL;
}

static struct stat status_of(const struct node *node)
{
    return (struct stat){
        .st_ino = (ino_t)(node - nodes) + 1,
        .st_mode = node->mode,
        .st_nlink = node->links,
        .st_uid = owner,
        .st_gid = group,
        .st_size = node->size,
        .st_blocks = (node->size + 511) / 512,
        .st_blksize = 4096,
        .st_atim.tv_sec = node->mtime,
        .st_mtim.tv_sec = node->mtime,
        .st_ctim.tv_sec = node->mtime,
    };
}

/* --- requests ------------------------------------------------------------------------------ */

static void on_init(void *data, struct fuse_conn_info *connection)
{
    (void)data;
    connection->want &= ~((unsigned)FUSE_CAP_READDIRPLUS | (unsigned)FUSE_CAP_READDIRPLUS_AUTO);
    connection->want &= ~((unsigned)FUSE_CAP_SPLICE_WRITE | (unsigned)FUSE_CAP_SPLICE_READ);
    puts("ready");
    fflush(stdout);
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    const struct node *directory = node_of(parent);
    if (directory == NULL) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    size_t index = find_child(parent - 1, name, strlen(name));
    struct fuse_entry_param entry = {
        .attr_timeout = TIMEOUT_SECONDS,
        .entry_timeout = TIMEOUT_SECONDS,
    };
    if (index != 0) { /* inode 0 says: remember that it does not exist */
        entry.ino = index + 1;
        entry.generation = 1;
        entry.attr = status_of(&nodes[index]);
    }
    fuse_reply_entry(request, &entry);
}

static void on_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)file;
    const struct node *node = node_of(inode);
    if (node == NULL) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct stat status = status_of(node);
    fuse_reply_attr(request, &status, TIMEOUT_SECONDS);
}

static void on_readlink(fuse_req_t request, fuse_ino_t inode)
{
    const struct node *node = node_of(inode);
    if (node == NULL || !S_ISLNK(node->mode))
        fuse_reply_err(request, EINVAL);
    else
        fuse_reply_readlink(request, node->reference);
}

static struct listing *add_name(fuse_req_t request, struct listing *listing, const char *name,
                                const struct node *node)
{
    struct stat status = status_of(node);
    size_t need = fuse_add_direntry(request, NULL, 0, name, NULL, 0);
    struct listing *grown = realloc(listing, sizeof(*listing) + listing->length + need);
    if (grown == NULL) {
        free(listing);
        return NULL;
    }
    fuse_add_direntry(request, grown->bytes + grown->length, need, name, &status,
                      (off_t)(grown->length + need));
    grown->length += need;
    return grown;
}

static void on_opendir(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    const struct node *directory = node_of(inode);
    if (directory == NULL || !S_ISDIR(directory->mode)) {
        fuse_reply_err(request, ENOTDIR);
        return;
    }
    struct listing *listing = calloc(1, sizeof(*listing));
    if (listing != NULL)
        listing = add_name(request, listing, ".", directory);
    if (listing != NULL)
        listing = add_name(request, listing, "..", &nodes[directory->parent]);
    for (size_t i = directory->first_child; listing != NULL && i != 0; i = nodes[i].next_sibling)
        listing = add_name(request, listing, nodes[i].name, &nodes[i]);
    if (listing == NULL) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    file->fh = (uintptr_t)listing;
    if (fuse_reply_open(request, file) != 0)
        free(listing);
}

static void on_readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                       struct fuse_file_info *file)
{
    (void)inode;
    const struct listing *listing = (const struct listing *)(uintptr_t)file->fh;
    if (offset < 0 || (size_t)offset >= listing->length) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    size_t rest = listing->length - (size_t)offset;
    fuse_reply_buf(request, listing->bytes + offset, rest < size ? rest : size);
}

static void on_releasedir(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    free((void *)(uintptr_t)file->fh);
    fuse_reply_err(request, 0);
}

static void on_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    const struct node *node = node_of(inode);
    if (node == NULL || !S_ISREG(node->mode)) {
        fuse_reply_err(request, EIO);
        return;
    }
    if ((file->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(request, EROFS);
        return;
    }
    int fd = openat(objects_fd, node->reference, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fuse_reply_err(request, EIO);
        return;
    }
    file->fh = (uint64_t)fd;
    file->keep_cache = 1;
    if (fuse_reply_open(request, file) != 0)
        close(fd);
}

static void on_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    (void)inode;
    static _Thread_local char *buffer;
    static _Thread_local size_t capacity;
    if (capacity < size) {
        free(buffer);
        buffer = malloc(size);
        capacity = buffer == NULL ? 0 : size;
    }
    ssize_t got = buffer == NULL ? -1 : pread((int)file->fh, buffer, size, offset);
    if (got < 0)
        fuse_reply_err(request, buffer == NULL ? ENOMEM : errno);
    else
        fuse_reply_buf(request, buffer, (size_t)got);
}

static void on_release(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    close((int)file->fh);
    fuse_reply_err(request, 0);
}

static void on_statfs(fuse_req_t request, fuse_ino_t inode)
{
    (void)inode;
    struct statvfs status = { .f_bsize = 4096, .f_frsize = 4096, .f_files = node_count,
                              .f_namemax = 255 };
    fuse_reply_statfs(request, &status);
}

static void on_getxattr(fuse_req_t request, fuse_ino_t inode, const char *name, size_t size)
{
    (void)inode;
    (void)name;
    (void)size;
    fuse_reply_err(request, ENODATA);
}

static void on_listxattr(fuse_req_t request, fuse_ino_t inode, size_t size)
{
    (void)inode;
    if (size == 0)
        fuse_reply_xattr(request, 0);
    else
        fuse_reply_buf(request, NULL, 0);
}

static void on_forget(fuse_req_t request, fuse_ino_t inode, uint64_t lookups)
{
    (void)inode;
    (void)lookups;
    fuse_reply_none(request); /* nodes live as long as the process */
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init,
    .lookup = on_lookup,
    .forget = on_forget,
    .getattr = on_getattr,
    .readlink = on_readlink,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .releasedir = on_releasedir,
    .open = on_open,
    .read = on_read,
    .release = on_release,
    .statfs = on_statfs,
    .getxattr = on_getxattr,
    .listxattr = on_listxattr,
};

/* --- the process --------------------------------------------------------------------------- */

static int serve(const char *mountpoint)
{
    char options[128];
    snprintf(options, sizeof(options), "ro,nodev,nosuid,default_permissions%s,fsname=reference",
             geteuid() == 0 ? ",allow_other" : "");
    char *words[] = { "reference", "-o", options, NULL };
    struct fuse_args arguments = FUSE_ARGS_INIT(3, words);
    struct fuse_session *session =
        fuse_session_new(&arguments, &operations, sizeof(operations), NULL);
    if (session == NULL)
        return 1;
    int result = 1;
    if (fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, mountpoint) == 0) {
            struct fuse_loop_config *config = fuse_loop_cfg_create();
            fuse_loop_cfg_set_clone_fd(config, 1);
            result = fuse_session_loop_mt(session, config) < 0 ? 1 : 0;
            fuse_loop_cfg_destroy(config);
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    fuse_session_destroy(session);
    fuse_opt_free_args(&arguments);
    return result;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: reference LISTING OBJECTS MOUNTPOINT\n");
        return 2;
    }
    pid_t parent = getppid();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        return 1; /* it died before we asked to be told */
    owner = getuid();
    group = getgid();
    load(argv[1]);
    objects_fd = open(argv[2], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (objects_fd < 0)
        die("cannot open", argv[2]);
    return serve(argv[3]);
}
