/* The first process of a kernel that needs no more than this: User-mode Linux, or the one that libkrun boots.
 *
 *   guest DIR    of the kernel's first root file system; lab/backends/usermode/handover.py writes what is in it
 *
 *     image         where the image's disk is mounted, to be the application's root
 *     helper        the folder of this program, which the image gets as /.lab
 *     settings      a line each: a name, a blank, a value
 *     application   the words of `init` (init.c), each with a NUL behind it, and environment, likewise
 *     etc           files that replace those of the image's /etc
 *
 * It does what guest/init.sh does in a virtual machine, without a shell: a fork and an execve cost such a kernel
 * some 20 ms. The host times the lines that begin with "lab:" on the console and the words written to the port of marks.
 * Its ports are User-mode Linux's serial lines, of which the host holds the other ends, or a virtual machine's virtio
 * ports: the setting `ports` says how many of those there are. Their first root file system is read-only.
 */

#include "inside.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { MARKS, ORDERS, OUTPUT, ERRORS, SESSIONS, INPUT, PORTS };
enum {
    MOST_TEXT = 1 << 20,
    MOST_LISTED = 4096,
    LONGEST_LINE = 256,
    SERIAL_MAJOR = 4, /* of /dev/ttyS0, whose minor is 64: admin-guide/devices.txt of the kernel's documentation */
    SERIAL_MINOR = 64,
    DISK_MAJOR = 98, /* ubd */
    DRAIN_MILLISECONDS = 1000,
    PORT_MICROSECONDS = 500,
    MOST_WAITS = 60000,
    NEVER_STARTED = 125,
};

static const char image[] = "image", group[] = "cgroup/application";
static int ports[PORTS], virtual_ports, outputs[2] = {-1, -1};
static pid_t application, relaying;
static struct relayed *passed; /* seen by the process that passes them on, and by this */

/* Say what failed on the console, and end: the kernel then panics, which ends it. */
static _Noreturn void give_up(const char *what) {
    dprintf(STDOUT_FILENO, "lab: failed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static char *load(const char *path, size_t *size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    char *text = malloc(MOST_TEXT + 1);
    *size = 0;
    if (file < 0 || !text)
        give_up(path);
    for (ssize_t more; (more = read(file, text + *size, MOST_TEXT - *size)) > 0;)
        *size += (size_t)more;
    close(file);
    text[*size] = '\0';
    return text;
}

/* The value of a setting, "" without one. */
static const char *setting(const char *name) {
    static char *text;
    static size_t size;
    static char value[LONGEST_LINE];
    if (!text)
        text = load("settings", &size);
    size_t length = strlen(name);
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ' ') {
            snprintf(value, sizeof value, "%.*s", (int)strcspn(line + length + 1, "\n"), line + length + 1);
            return value;
        }
    return "";
}

static void make_folder(const char *path) {
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        give_up(path);
}

static void attach(const char *source, const char *target, const char *type, unsigned long flags,
                   const char *options) {
    make_folder(target);
    if (mount(source, target, type, flags, options) < 0)
        give_up(target);
}

/* Where the kernel shows its devices. Another file system may be there already that is the same. */
static void show_devices(void) {
    make_folder("/dev");
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "") < 0 && errno != EBUSY)
        give_up("/dev");
}

/* In vportMpN the M counts virtio devices, and the driver adds one port after another. */
static void find_port(int port, char *path, size_t size) {
    char pattern[LONGEST_LINE];
    snprintf(pattern, sizeof pattern, "/dev/vport*p%d", port + 1);
    for (int waited = 0; waited < MOST_WAITS; waited++, usleep(PORT_MICROSECONDS)) {
        glob_t found;
        if (glob(pattern, 0, NULL, &found) == 0) {
            snprintf(path, size, "%s", found.gl_pathv[0]);
            globfree(&found);
            return;
        }
    }
    give_up(pattern);
}

/* Each once the host's end is there: before that, what is read is the end of the file. The one that an application's
 * input comes from opens once only, and stays for who reads it (interact.c), under the name that it has everywhere.
 */
static void open_virtual_ports(void) {
    for (int port = 0; port < virtual_ports; port++) {
        char path[LONGEST_LINE];
        find_port(port, path, sizeof path);
        if (port == INPUT) {
            if (symlink(path, "/dev/vport0p6") < 0 && errno != EEXIST)
                give_up(path);
            continue;
        }
        ports[port] = open(path, O_RDWR | O_CLOEXEC);
        if (ports[port] < 0)
            give_up(path);
        struct pollfd there = {.fd = ports[port], .events = POLLOUT};
        for (int waited = 0; poll(&there, 1, 0) < 0 || there.revents & POLLHUP; waited++, usleep(PORT_MICROSECONDS))
            if (waited == MOST_WAITS)
                give_up(path);
    }
}

/* The serial lines, raw: they carry bytes. Each stays open here, so that none forgets that, nor closes the host's end. */
static void open_serial_lines(void) {
    for (int port = 0; port < PORTS; port++) {
        char path[LONGEST_LINE];
        struct termios raw;
        snprintf(path, sizeof path, "port%d", port);
        if (mknod(path, S_IFCHR | 0600, makedev(SERIAL_MAJOR, SERIAL_MINOR + port)) < 0)
            give_up(path);
        ports[port] = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (ports[port] < 0 && port == INPUT)
            continue; /* there only when somebody types to the application */
        if (ports[port] < 0 || tcgetattr(ports[port], &raw) < 0)
            give_up(path);
        cfmakeraw(&raw);
        raw.c_cflag |= CLOCAL;
        if (tcsetattr(ports[port], TCSANOW, &raw) < 0)
            give_up(path);
    }
}

static void mark(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void mark(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vdprintf(ports[MARKS], format, list);
    va_end(list);
}

/* A file of the image's /etc, by one of lab's: what is there may be a link that leads out of the image. */
static void replace_file(const char *name) {
    char from[LONGEST_LINE], to[LONGEST_LINE];
    size_t size;
    snprintf(from, sizeof from, "etc/%s", name);
    snprintf(to, sizeof to, "%s/etc/%s", image, name);
    char *text = load(from, &size);
    unlink(to);
    int file = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0 || write(file, text, size) != (ssize_t)size || close(file) < 0)
        give_up(to);
    free(text);
}

static void mount_image(void) {
    struct stat etc;
    if (!virtual_ports && mknod("disk", S_IFBLK | 0600, makedev(DISK_MAJOR, 0)) < 0)
        give_up("disk");
    show_devices(); /* for those that serve commands from here, too */
    attach(virtual_ports ? "/dev/vda" : "disk", image, "ext4", 0, "");
    attach("proc", "image/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    attach("sysfs", "image/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    attach("dev", "image/dev", "devtmpfs", MS_NOSUID, "");
    attach("devpts", "image/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,gid=5,ptmxmode=666");
    attach("shm", "image/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    const char *links[][2] = {{"/proc/self/fd", "image/dev/fd"}, {"/proc/self/fd/0", "image/dev/stdin"},
                              {"/proc/self/fd/1", "image/dev/stdout"}, {"/proc/self/fd/2", "image/dev/stderr"}};
    for (size_t each = 0; each < sizeof links / sizeof *links; each++)
        if (symlink(links[each][0], links[each][1]) < 0 && errno != EEXIST)
            give_up(links[each][1]);
    attach("helper", "image/.lab", NULL, MS_BIND, NULL);
    if (mount(NULL, "image/.lab", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
        give_up("image/.lab");
    if (stat("image/etc", &etc) == 0 && S_ISDIR(etc.st_mode)) {
        const char *names[] = {"hostname", "hosts", "resolv.conf"};
        for (size_t each = 0; each < sizeof names / sizeof *names; each++)
            replace_file(names[each]);
    }
}

static void bring_up(int from, const char *name) {
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};
    strcpy(request.ifr_name, name);
    if (ioctl(from, SIOCSIFFLAGS, &request) < 0)
        give_up(name);
}

static void set_address(int from, unsigned long what, in_addr_t address) {
    struct ifreq request = {.ifr_name = "eth0"};
    const struct sockaddr_in value = {.sin_family = AF_INET, .sin_addr.s_addr = address};
    memcpy(&request.ifr_addr, &value, sizeof value);
    if (ioctl(from, what, &request) < 0)
        give_up("eth0");
}

/* The card gets the name that it has in every instance. Its hardware address the kernel was started with. */
static void connect_network(void) {
    char address[LONGEST_LINE];
    int from = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (from < 0)
        give_up("socket");
    bring_up(from, "lo");
    snprintf(address, sizeof address, "%s", setting("address"));
    char *length = strchr(address, '/');
    if (length) {
        struct ifreq request = {.ifr_name = "vec0"};
        strcpy(request.ifr_newname, "eth0");
        *length++ = '\0';
        if (!virtual_ports && ioctl(from, SIOCSIFNAME, &request) < 0)
            give_up("vec0");
        set_address(from, SIOCSIFADDR, inet_addr(address));
        set_address(from, SIOCSIFNETMASK, htonl(~0u << (32 - number(length))));
        bring_up(from, "eth0");
    }
    close(from);
}

static void write_line(const char *path, const char *line) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, line, strlen(line)) < 0)
        give_up(path);
    close(file);
}

static void limit_processes(void) {
    if (!*setting("pids"))
        return;
    attach("cgroup", "cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
    write_line("cgroup/cgroup.subtree_control", "+pids");
    make_folder(group);
    write_line("cgroup/application/pids.max", setting("pids"));
}

static void join_limit(void) {
    if (*setting("pids"))
        write_line("cgroup/application/cgroup.procs", "0");
}

/* Each with a NUL behind it in the file. */
static char **load_words(const char *path) {
    size_t size;
    char *text = load(path, &size), **words = calloc(MOST_LISTED + 1, sizeof *words);
    size_t count = 0;
    for (char *word = text; words && word < text + size && count < MOST_LISTED; word += strlen(word) + 1)
        words[count++] = word;
    if (!words || count == MOST_LISTED)
        give_up(path);
    return words;
}

static void close_outputs(void) {
    for (int each = 0; each < OUTPUTS; each++)
        close(outputs[each]);
}

/* Pipes from the application, which may open them again as /dev/stdout, and a process that passes on what comes. */
static void start_relay(void) {
    char *rest;
    uid_t uid = (uid_t)strtoul(setting("owner"), &rest, 10);
    passed = mmap(NULL, sizeof(struct relayed[OUTPUTS]), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (passed == MAP_FAILED)
        give_up("memory");
    for (int each = 0; each < OUTPUTS; each++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0 || fchown(ends[1], uid, (gid_t)strtoul(*rest ? rest + 1 : "0", NULL, 10)) < 0)
            give_up("pipe");
        passed[each] = (struct relayed){.from = ends[0], .to = ports[OUTPUT + each]};
        outputs[each] = ends[1];
    }
    relaying = fork();
    if (relaying == 0) {
        close_outputs();
        relay_all(passed);
        _exit(0);
    }
    for (int each = 0; each < OUTPUTS; each++)
        close(passed[each].from);
}

/* Becomes what runs the application: it holds status open until the execve(2), or says why there is none. */
static _Noreturn void become_application(int status) {
    char **words = load_words("application");
    signal(SIGPIPE, SIG_DFL);
    join_limit();
    environ = load_words("environment");
    int null = open("image/dev/null", O_RDWR | O_CLOEXEC);
    if (dup2(null, STDIN_FILENO) < 0 || dup2(outputs[0], STDOUT_FILENO) < 0 || dup2(outputs[1], STDERR_FILENO) < 0)
        _exit(NEVER_STARTED);
    if (strcmp(words[1], "interact") != 0 && chroot(image) < 0) /* which reads a port, and enters the image then */
        _exit(NEVER_STARTED);
    if (chdir("/") < 0 || dup3(status, 3, 0) < 0)
        _exit(NEVER_STARTED);
    execv(words[0], words);
    dprintf(3, "%d", errno);
    _exit(NEVER_STARTED);
}

static void await_execution(int status) {
    char said[16] = "";
    ssize_t size = read(status, said, sizeof said - 1);
    if (size > 0)
        mark("failed %s\n", said);
    else
        mark("executed\n");
    close(status);
}

static pid_t serve_commands(const char *word) {
    pid_t server = fork();
    if (server != 0)
        return server;
    char root[LONGEST_LINE], place[LONGEST_LINE];
    char *folder = get_current_dir_name();
    snprintf(root, sizeof root, "%s/%s", folder, image);
    snprintf(place, sizeof place, "%s/%s", folder, group);
    dup2(ports[SESSIONS], STDIN_FILENO);
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (*setting("pids"))
        execl("helper/inside", "inside", "serve", "--acknowledge", "yes", "--root", root, "--group", place, word, "-", NULL);
    else
        execl("helper/inside", "inside", "serve", "--acknowledge", "yes", "--root", root, word, "-", NULL);
    _exit(NEVER_STARTED);
}

/* The host's orders, a line each: signal NUMBER, to the application; sessions WORD, to serve commands (serve.c); end,
 * which ends the process that reads them, and the first process, which waits for that one, ends the kernel.
 */
static _Noreturn void obey_orders(void) {
    FILE *orders = fdopen(ports[ORDERS], "r");
    char line[LONGEST_LINE];
    pid_t server = 0;
    signal(SIGCHLD, SIG_IGN);
    while (orders && fgets(line, sizeof line, orders)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "end") == 0)
            break;
        char *about = strchr(line, ' ');
        if (!about)
            continue;
        *about++ = '\0';
        if (strcmp(line, "signal") == 0)
            kill(application, (int)number(about));
        else if (strcmp(line, "sessions") == 0) {
            if (server > 0)
                kill(server, SIGKILL);
            server = serve_commands(about);
        }
    }
    _exit(0);
}

/* Reap whatever ends, until the application has; its exit code. */
static int outlive(void) {
    int status;
    for (pid_t ended; (ended = waitpid(-1, &status, 0)) != application;)
        if (ended < 0 && errno != EINTR)
            give_up("wait");
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Until the ports have all output, or after a second, if a stray process keeps a pipe open, what is in it then. */
static void drain_relay(void) {
    for (int waited = 0; waitpid(relaying, NULL, WNOHANG) == 0; waited += 2) {
        if (waited == DRAIN_MILLISECONDS)
            kill(relaying, SIGTERM);
        usleep(2000);
    }
}

int guest(int count, char **arguments) {
    int status[2];
    dprintf(STDOUT_FILENO, "lab: init\n");
    if (count < 2 || getpid() != 1) /* the kernel has added words of its own: os-Linux/main.c, arch/um */
        fail("guest: expected DIR, as the first process of a kernel");
    if (chdir(arguments[1]) < 0)
        give_up(arguments[1]);
    virtual_ports = (int)number(*setting("ports") ? setting("ports") : "0");
    if (virtual_ports) {
        show_devices();
        open_virtual_ports();
    } else
        open_serial_lines();
    mount_image();
    const char *name = setting("hostname");
    if (sethostname(name, strlen(name)) < 0)
        give_up("host name");
    connect_network();
    limit_processes();
    signal(SIGPIPE, SIG_IGN);
    start_relay();
    if (pipe2(status, O_CLOEXEC) < 0)
        give_up("pipe");
    application = fork();
    if (application == 0)
        become_application(status[1]);
    close_outputs();
    close(status[1]);
    await_execution(status[0]);
    pid_t orders = fork();
    if (orders == 0)
        obey_orders();
    int code = outlive();
    drain_relay();
    /* Only the host knows what is under way, and orders the end when it has all. The orders end without a host, too. */
    mark("exited %d %llu %llu\n", code, (unsigned long long)passed[0].passed, (unsigned long long)passed[1].passed);
    waitpid(orders, NULL, 0);
    /* Either ends it, which without the application has no purpose. libkrun's machine can't be turned off. */
    reboot(virtual_ports ? RB_AUTOBOOT : RB_POWER_OFF);
    return 0;
}
