package iouring

import "structs"

// Numbers of linux/io_uring.h.
const (
	setupRDisabled   = 1 << 6
	setupClamp       = 1 << 4
	setupSubmitAll   = 1 << 7
	setupCoopTaskrun = 1 << 8

	// cqEventfdDisabled is IORING_CQ_EVENTFD_DISABLED.
	cqEventfdDisabled = 1 << 0

	featSingleMmap   = 1 << 0
	featNoDrop       = 1 << 1
	featSubmitStable = 1 << 2

	registerBuffers        = 0
	registerFiles          = 2
	registerEventfd        = 4
	registerFilesUpdate    = 6
	registerRestrictions   = 11
	registerEnableRings    = 12
	registerIOWQMaxWorkers = 19
	registerCloneBuffers   = 30

	restrictRegisterOp       = 0
	restrictSQEOp            = 1
	restrictSQEFlagsAllowed  = 2
	restrictSQEFlagsRequired = 3

	offSQRing = 0
	offSQEs   = 0x10000000

	sqeFixedFile = 1 << 0
	fsyncData    = 1 << 0
)

// An Op is what a request does (enum io_uring_op).
type Op uint8

// The operations that this package knows.
const (
	OpNop        Op = 0
	OpReadv      Op = 1
	OpWritev     Op = 2
	OpFsync      Op = 3
	OpReadFixed  Op = 4
	OpWriteFixed Op = 5
	OpFallocate  Op = 17
)

// sqe mirrors struct io_uring_sqe (64 bytes), with the members that the
// operations above use.
type sqe struct {
	_ structs.HostLayout

	opcode      Op
	flags       uint8
	ioprio      uint16
	fd          int32
	off         uint64
	addr        uint64
	len         uint32
	opFlags     uint32 // rw_flags, fsync_flags, …
	userData    uint64
	bufIndex    uint16
	personality uint16
	fileIndex   int32
	addr3       uint64
	pad         uint64
}

// cqe mirrors struct io_uring_cqe (16 bytes).
type cqe struct {
	_ structs.HostLayout

	userData uint64
	res      int32
	flags    uint32
}

// An Iovec mirrors struct iovec (sys/uio.h): a range of this process's
// memory. Base is an address and keeps nothing alive.
type Iovec struct {
	_ structs.HostLayout

	Base uint64
	Len  uint64
}

// filesUpdate mirrors struct io_uring_files_update.
type filesUpdate struct {
	_ structs.HostLayout

	offset, resv uint32
	fds          uint64 // address of descriptors
}

// cloneBuffers mirrors struct io_uring_clone_buffers of Linux 6.12, whose last members have
// got meanings since.
type cloneBuffers struct {
	_ structs.HostLayout

	srcFd, flags uint32
	pad          [6]uint32
}

// sqOffsets mirrors struct io_sqring_offsets.
type sqOffsets struct {
	_ structs.HostLayout

	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

// cqOffsets mirrors struct io_cqring_offsets.
type cqOffsets struct {
	_ structs.HostLayout

	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

// params mirrors struct io_uring_params.
type params struct {
	_ structs.HostLayout

	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFd uint32
	resv                                                                   [3]uint32
	sqOff                                                                  sqOffsets
	cqOff                                                                  cqOffsets
}

// restriction mirrors struct io_uring_restriction.
type restriction struct {
	_ structs.HostLayout

	opcode uint16
	arg    uint8 // register_op, sqe_op or sqe_flags
	resv   uint8
	resv2  [3]uint32
}
