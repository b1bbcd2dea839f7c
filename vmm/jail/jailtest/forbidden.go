package jailtest

import "golang.org/x/sys/unix"

// Flags of threads as the Go runtime makes them (vmm/jail).
const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_SYSVSEM | unix.CLONE_THREAD | unix.CLONE_SETTLS

const anonymous = unix.MAP_ANON | unix.MAP_PRIVATE

// Requests of KVM, vhost and tap devices that only the making of a machine takes
// (linux/kvm.h, linux/vhost.h, linux/if_tun.h).
const (
	kvmCreateVM         = 0xae01
	kvmCreateVCPU       = 0xae41
	kvmSetMemoryRegion  = 0x4020ae46
	kvmCreateDevice     = 0xc00caee0
	kvmEnableCap        = 0x4068aea3
	kvmSetGuestDebug    = 0x4048ae9b
	kvmSetMSRs          = 0x4008ae89
	vhostVsockSetCID    = 0x4008af60
	vhostSetLogBase     = 0x4008af04
	siocSetFlags        = 0x8914
	ficlone             = 0x40049409
	fsSetFlags          = 0x40086602
	vfioGetDeviceRegion = 0x3b6c
)

// forbidden are calls that the filter does not let begin.
var forbidden = []struct {
	name string
	nr   uintptr
	args []uintptr
}{
	// Paths, those of /proc with them.
	{"path open", unix.SYS_OPEN, nil},
	{"path openat", unix.SYS_OPENAT, []uintptr{3}},
	{"path openat2", unix.SYS_OPENAT2, nil},
	{"path creat", unix.SYS_CREAT, nil},
	{"path stat", unix.SYS_STAT, nil},
	{"path lstat", unix.SYS_LSTAT, nil},
	{"path newfstatat", unix.SYS_NEWFSTATAT, nil},
	{"path statx by name", unix.SYS_STATX, []uintptr{^uintptr(99), 0, 0, 0x27ff}},
	{"path statfs", unix.SYS_STATFS, nil},
	{"path access", unix.SYS_ACCESS, nil},
	{"path faccessat2", unix.SYS_FACCESSAT2, nil},
	{"path readlink", unix.SYS_READLINK, nil},
	{"path mkdir", unix.SYS_MKDIR, nil},
	{"path unlink", unix.SYS_UNLINK, nil},
	{"path rename", unix.SYS_RENAME, nil},
	{"path link", unix.SYS_LINK, nil},
	{"path linkat of a descriptor", unix.SYS_LINKAT, []uintptr{3, 0, 3, 0, unix.AT_EMPTY_PATH}},
	{"path symlink", unix.SYS_SYMLINK, nil},
	{"path mknod", unix.SYS_MKNOD, nil},
	{"path chmod", unix.SYS_CHMOD, nil},
	{"path fchmod", unix.SYS_FCHMOD, []uintptr{3}},
	{"path chown", unix.SYS_CHOWN, nil},
	{"path fchown", unix.SYS_FCHOWN, []uintptr{3}},
	{"path truncate", unix.SYS_TRUNCATE, nil},
	{"path setxattr", unix.SYS_SETXATTR, nil},
	{"path chdir", unix.SYS_CHDIR, nil},
	{"path fchdir", unix.SYS_FCHDIR, []uintptr{3}},
	{"path getdents64", unix.SYS_GETDENTS64, []uintptr{3}},
	{"path by handle", unix.SYS_OPEN_BY_HANDLE_AT, nil},
	{"path name to handle", unix.SYS_NAME_TO_HANDLE_AT, nil},
	{"path inotify", unix.SYS_INOTIFY_INIT1, nil},
	{"path fanotify", unix.SYS_FANOTIFY_INIT, nil},
	{"path execve", unix.SYS_EXECVE, nil},
	{"path execveat", unix.SYS_EXECVEAT, []uintptr{3, 0, 0, 0, unix.AT_EMPTY_PATH}},
	{"path quotactl", unix.SYS_QUOTACTL, nil},
	// Mounts and roots.
	{"mount", unix.SYS_MOUNT, nil},
	{"mount umount2", unix.SYS_UMOUNT2, nil},
	{"mount open_tree", unix.SYS_OPEN_TREE, nil},
	{"mount move_mount", unix.SYS_MOVE_MOUNT, nil},
	{"mount fsopen", unix.SYS_FSOPEN, nil},
	{"mount mount_setattr", unix.SYS_MOUNT_SETATTR, nil},
	{"mount pivot_root", unix.SYS_PIVOT_ROOT, nil},
	{"mount chroot", unix.SYS_CHROOT, nil},
	// Other processes.
	{"process kill", unix.SYS_KILL, []uintptr{1, uintptr(unix.SIGTERM)}},
	{"process kill all", unix.SYS_KILL, []uintptr{^uintptr(0), uintptr(unix.SIGKILL)}},
	{"process tkill", unix.SYS_TKILL, []uintptr{1}},
	{"process tgkill of another", unix.SYS_TGKILL, []uintptr{2, 2, uintptr(unix.SIGKILL)}},
	{"process signal with a value", unix.SYS_RT_SIGQUEUEINFO, []uintptr{1}},
	{"process ptrace", unix.SYS_PTRACE, []uintptr{unix.PTRACE_ATTACH, 1}},
	{"process read its memory", unix.SYS_PROCESS_VM_READV, []uintptr{1}},
	{"process write its memory", unix.SYS_PROCESS_VM_WRITEV, []uintptr{1}},
	{"process pidfd_open", unix.SYS_PIDFD_OPEN, []uintptr{1}},
	{"process pidfd_getfd", unix.SYS_PIDFD_GETFD, []uintptr{3}},
	{"process pidfd_send_signal", unix.SYS_PIDFD_SEND_SIGNAL, []uintptr{3}},
	{"process madvise", unix.SYS_PROCESS_MADVISE, []uintptr{3}},
	{"process kcmp", unix.SYS_KCMP, []uintptr{1, 1}},
	{"process prlimit", unix.SYS_PRLIMIT64, []uintptr{1}},
	{"process setrlimit", unix.SYS_SETRLIMIT, []uintptr{unix.RLIMIT_NOFILE}},
	{"process fork", unix.SYS_CLONE, []uintptr{uintptr(unix.SIGCHLD)}},
	{"process clone3", unix.SYS_CLONE3, nil},
	{"process vfork flags", unix.SYS_CLONE, []uintptr{unix.CLONE_VM | unix.CLONE_VFORK | uintptr(unix.SIGCHLD)}},
	// Namespaces, users, privilege.
	{"namespace unshare user", unix.SYS_UNSHARE, []uintptr{unix.CLONE_NEWUSER}},
	{"namespace unshare network", unix.SYS_UNSHARE, []uintptr{unix.CLONE_NEWNET}},
	{"namespace setns", unix.SYS_SETNS, []uintptr{3}},
	{"namespace of a thread", unix.SYS_CLONE, []uintptr{thread | unix.CLONE_NEWUSER}},
	{"privilege setuid", unix.SYS_SETUID, nil},
	{"privilege setresuid", unix.SYS_SETRESUID, nil},
	{"privilege setgroups", unix.SYS_SETGROUPS, nil},
	{"privilege capset", unix.SYS_CAPSET, nil},
	{"privilege dumpable", unix.SYS_PRCTL, []uintptr{unix.PR_SET_DUMPABLE, 1}},
	{"privilege traced by anybody", unix.SYS_PRCTL, []uintptr{unix.PR_SET_PTRACER, ^uintptr(0)}},
	{"privilege another filter", unix.SYS_SECCOMP, []uintptr{unix.SECCOMP_SET_MODE_FILTER}},
	{"privilege landlock", unix.SYS_LANDLOCK_CREATE_RULESET, nil},
	{"privilege personality", unix.SYS_PERSONALITY, []uintptr{0x0400000}},
	// The kernel's larger surfaces.
	{"kernel bpf", unix.SYS_BPF, nil},
	{"kernel perf_event_open", unix.SYS_PERF_EVENT_OPEN, nil},
	{"kernel userfaultfd", unix.SYS_USERFAULTFD, nil},
	{"kernel io_uring_setup", unix.SYS_IO_URING_SETUP, []uintptr{8}},
	{"kernel io_uring buffers", unix.SYS_IO_URING_REGISTER, []uintptr{3, 0}},
	{"kernel io_uring lifts its restrictions", unix.SYS_IO_URING_REGISTER, []uintptr{3, 11}},
	{"kernel keyctl", unix.SYS_KEYCTL, nil},
	{"kernel add_key", unix.SYS_ADD_KEY, nil},
	{"kernel request_key", unix.SYS_REQUEST_KEY, nil},
	{"kernel init_module", unix.SYS_INIT_MODULE, nil},
	{"kernel kexec_load", unix.SYS_KEXEC_LOAD, nil},
	{"kernel reboot", unix.SYS_REBOOT, nil},
	{"kernel syslog", unix.SYS_SYSLOG, nil},
	{"kernel iopl", unix.SYS_IOPL, []uintptr{3}},
	{"kernel ioperm", unix.SYS_IOPERM, nil},
	{"kernel modify_ldt", unix.SYS_MODIFY_LDT, nil},
	{"kernel swapon", unix.SYS_SWAPON, nil},
	{"kernel aio", unix.SYS_IO_SETUP, []uintptr{1}},
	{"kernel shared memory", unix.SYS_SHMGET, nil},
	{"kernel message queue", unix.SYS_MQ_OPEN, nil},
	{"kernel semaphores", unix.SYS_SEMGET, nil},
	{"kernel timer", unix.SYS_TIMER_CREATE, nil},
	{"kernel timerfd", unix.SYS_TIMERFD_CREATE, nil},
	{"kernel splice", unix.SYS_SPLICE, nil},
	{"kernel vmsplice", unix.SYS_VMSPLICE, nil},
	{"kernel sendfile", unix.SYS_SENDFILE, nil},
	{"kernel set the clock", unix.SYS_CLOCK_SETTIME, nil},
	{"kernel set the time", unix.SYS_SETTIMEOFDAY, nil},
	{"kernel sethostname", unix.SYS_SETHOSTNAME, nil},
	{"kernel call of the x32 ABI", 0x40000000 | unix.SYS_READ, nil},
	{"kernel call that does not exist", 4095, nil},
	// Where it runs, and from which memory.
	{"place sched_setaffinity", unix.SYS_SCHED_SETAFFINITY, nil},
	{"place another's affinity", unix.SYS_SCHED_GETAFFINITY, []uintptr{1}},
	{"place sched_setscheduler", unix.SYS_SCHED_SETSCHEDULER, nil},
	{"place setpriority", unix.SYS_SETPRIORITY, nil},
	{"place ioprio_set", unix.SYS_IOPRIO_SET, nil},
	{"place mbind", unix.SYS_MBIND, nil},
	{"place move_pages", unix.SYS_MOVE_PAGES, nil},
	// Memory.
	{"memory executable map", unix.SYS_MMAP, []uintptr{0, 4096, unix.PROT_READ | unix.PROT_EXEC, anonymous}},
	{"memory made executable", unix.SYS_MPROTECT, []uintptr{0, 4096, unix.PROT_READ | unix.PROT_EXEC}},
	{"memory protection key", unix.SYS_PKEY_MPROTECT, nil},
	{"memory file", unix.SYS_MEMFD_CREATE, nil},
	{"memory secret", unix.SYS_MEMFD_SECRET, nil},
	{"memory lock", unix.SYS_MLOCK, nil},
	{"memory poisoned", unix.SYS_MADVISE, []uintptr{0, 0, 100}},
	{"memory merged", unix.SYS_MADVISE, []uintptr{0, 0, unix.MADV_MERGEABLE}},
	{"memory kept over fork", unix.SYS_MADVISE, []uintptr{0, 0, unix.MADV_DOFORK}},
	// Descriptors it holds, in ways not meant.
	{"ioctl of a terminal", unix.SYS_IOCTL, []uintptr{2, unix.TIOCSTI}},
	{"ioctl bytes to read", unix.SYS_IOCTL, []uintptr{3, unix.TIOCINQ}},
	{"ioctl asynchronous signals", unix.SYS_IOCTL, []uintptr{3, 0x5452}},
	{"ioctl KVM_CREATE_VM", unix.SYS_IOCTL, []uintptr{3, kvmCreateVM}},
	{"ioctl KVM_CREATE_VCPU", unix.SYS_IOCTL, []uintptr{3, kvmCreateVCPU}},
	{"ioctl KVM_SET_USER_MEMORY_REGION", unix.SYS_IOCTL, []uintptr{3, kvmSetMemoryRegion}},
	{"ioctl KVM_CREATE_DEVICE", unix.SYS_IOCTL, []uintptr{3, kvmCreateDevice}},
	{"ioctl KVM_ENABLE_CAP", unix.SYS_IOCTL, []uintptr{3, kvmEnableCap}},
	{"ioctl KVM_SET_GUEST_DEBUG", unix.SYS_IOCTL, []uintptr{3, kvmSetGuestDebug}},
	{"ioctl KVM_SET_MSRS", unix.SYS_IOCTL, []uintptr{3, kvmSetMSRs}},
	{"ioctl KVM_RUN in the upper half", unix.SYS_IOCTL, []uintptr{3, 1<<32 | 0xae80}},
	{"ioctl VHOST_VSOCK_SET_GUEST_CID", unix.SYS_IOCTL, []uintptr{3, vhostVsockSetCID}},
	{"ioctl VHOST_SET_LOG_BASE", unix.SYS_IOCTL, []uintptr{3, vhostSetLogBase}},
	{"ioctl TUNSETIFF", unix.SYS_IOCTL, []uintptr{3, unix.TUNSETIFF}},
	{"ioctl TUNSETPERSIST", unix.SYS_IOCTL, []uintptr{3, unix.TUNSETPERSIST}},
	{"ioctl TUNSETOWNER", unix.SYS_IOCTL, []uintptr{3, unix.TUNSETOWNER}},
	{"ioctl TUNATTACHFILTER", unix.SYS_IOCTL, []uintptr{3, unix.TUNATTACHFILTER}},
	{"ioctl SIOCSIFFLAGS", unix.SYS_IOCTL, []uintptr{3, siocSetFlags}},
	{"ioctl BLKDISCARD", unix.SYS_IOCTL, []uintptr{3, unix.BLKDISCARD}},
	{"ioctl FICLONE", unix.SYS_IOCTL, []uintptr{3, ficlone}},
	{"ioctl FS_IOC_SETFLAGS", unix.SYS_IOCTL, []uintptr{3, fsSetFlags}},
	{"ioctl VFIO_DEVICE_GET_REGION_INFO", unix.SYS_IOCTL, []uintptr{3, vfioGetDeviceRegion}},
	{"fcntl F_SETOWN", unix.SYS_FCNTL, []uintptr{3, unix.F_SETOWN, 1}},
	{"fcntl F_SETLEASE", unix.SYS_FCNTL, []uintptr{3, unix.F_SETLEASE}},
	{"fcntl F_ADD_SEALS", unix.SYS_FCNTL, []uintptr{3, unix.F_ADD_SEALS, unix.F_SEAL_WRITE}},
	{"fcntl F_SETPIPE_SZ", unix.SYS_FCNTL, []uintptr{3, unix.F_SETPIPE_SZ, 1 << 20}},
	{"fcntl lock", unix.SYS_FCNTL, []uintptr{3, unix.F_SETLKW}},
	{"socket connect", unix.SYS_CONNECT, []uintptr{3}},
	{"socket bind", unix.SYS_BIND, []uintptr{3}},
	{"socket listen", unix.SYS_LISTEN, []uintptr{3}},
	{"socket sendto", unix.SYS_SENDTO, []uintptr{3}},
	{"socket option", unix.SYS_SETSOCKOPT, []uintptr{3, unix.SOL_SOCKET, unix.SO_PASSCRED}},
	{"socket filter", unix.SYS_SETSOCKOPT, []uintptr{3, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}},
	{"socket pair of datagrams", unix.SYS_SOCKETPAIR, []uintptr{unix.AF_UNIX, unix.SOCK_DGRAM}},
	{"socket pair of family inet", unix.SYS_SOCKETPAIR, []uintptr{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK}},
	{"socket unix", unix.SYS_SOCKET, []uintptr{unix.AF_UNIX, unix.SOCK_STREAM}},
}

// families are those of sockets, but for Unix sockets, which have attempts of their own.
var families = []struct {
	name   string
	number uintptr
}{
	{"unspec", unix.AF_UNSPEC}, {"inet", unix.AF_INET}, {"ax25", unix.AF_AX25}, {"ipx", unix.AF_IPX}, {"appletalk", unix.AF_APPLETALK},
	{"netrom", unix.AF_NETROM}, {"bridge", unix.AF_BRIDGE}, {"atmpvc", unix.AF_ATMPVC}, {"x25", unix.AF_X25}, {"inet6", unix.AF_INET6},
	{"rose", unix.AF_ROSE}, {"decnet", unix.AF_DECnet}, {"netbeui", unix.AF_NETBEUI}, {"security", unix.AF_SECURITY}, {"key", unix.AF_KEY},
	{"netlink", unix.AF_NETLINK}, {"packet", unix.AF_PACKET}, {"ash", unix.AF_ASH}, {"econet", unix.AF_ECONET}, {"atmsvc", unix.AF_ATMSVC},
	{"rds", unix.AF_RDS}, {"sna", unix.AF_SNA}, {"irda", unix.AF_IRDA}, {"pppox", unix.AF_PPPOX}, {"wanpipe", unix.AF_WANPIPE},
	{"llc", unix.AF_LLC}, {"ib", unix.AF_IB}, {"mpls", unix.AF_MPLS}, {"can", unix.AF_CAN}, {"tipc", unix.AF_TIPC},
	{"bluetooth", unix.AF_BLUETOOTH}, {"iucv", unix.AF_IUCV}, {"rxrpc", unix.AF_RXRPC}, {"isdn", unix.AF_ISDN}, {"phonet", unix.AF_PHONET},
	{"ieee802154", unix.AF_IEEE802154}, {"caif", unix.AF_CAIF}, {"alg", unix.AF_ALG}, {"nfc", unix.AF_NFC}, {"vsock", unix.AF_VSOCK},
	{"kcm", unix.AF_KCM}, {"qipcrtr", unix.AF_QIPCRTR}, {"smc", unix.AF_SMC}, {"xdp", unix.AF_XDP}, {"mctp", 45},
}
