package xfs

import "encoding/binary"

// Offsets in the header of a log record (struct xlog_rec_header).
const (
	logCycle     = 4
	logVersion   = 8
	logLength    = 12
	logLSN       = 16
	logTail      = 24
	logPrevious  = 36
	logOps       = 40
	logCycleData = 44
	logFormat    = 300
	logUUID      = 304
	logSize      = 320
	logBlock     = 512 // the log's own unit
)

// log writes an empty log: zeros, and at its start one record that says that
// the file system was unmounted.
func (m *maker) log() error {
	at := (int64(m.logGroup)*int64(m.groupBlocks) + int64(m.afterTrees())) * blockSize
	if err := zero(m.f, at, int64(m.logBlocks)*blockSize); err != nil {
		return err
	}
	return m.write(m.unmountRecord(), m.logGroup, m.afterTrees(), 0)
}

func (m *maker) unmountRecord() []byte {
	const cycle, transaction = 1, 0xb0c0d0d0
	length := logBlock
	if m.sector > 512 {
		length = m.sector - logBlock // header and data fill the log's stripe unit
	}
	b := make([]byte, logBlock+length)
	be.PutUint32(b, 0xfeedbabe)
	be.PutUint32(b[logCycle:], cycle)
	be.PutUint32(b[logVersion:], 2)
	be.PutUint32(b[logLength:], uint32(length))
	be.PutUint64(b[logLSN:], cycle<<32)
	be.PutUint64(b[logTail:], cycle<<32)
	be.PutUint32(b[logPrevious:], null)
	be.PutUint32(b[logOps:], 1)
	be.PutUint32(b[logCycleData:], transaction)
	be.PutUint32(b[logFormat:], 1) // Linux, little endian
	copy(b[logUUID:], m.options.UUID[:])
	be.PutUint32(b[logSize:], 32768)
	// The first word of each block of data is the cycle; what was there, for
	// the first one the transaction's number, is in the header.
	for i := logBlock; i < len(b); i += logBlock {
		be.PutUint32(b[i:], cycle)
	}
	op := b[logBlock:]
	be.PutUint32(op[4:], 8)                        // bytes that follow the operation's header
	op[8], op[9] = 0xaa, 0x20                      // XFS_LOG, XLOG_UNMOUNT_TRANS
	binary.LittleEndian.PutUint16(op[12:], 0x556e) // XLOG_UNMOUNT_TYPE, "Un"
	return b
}
