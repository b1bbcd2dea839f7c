package writecache

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Numbers of the NBD protocol (https://github.com/NetworkBlockDevice/nbd, doc/proto.md): its
// fixed newstyle negotiation and simple replies.
const (
	magicHello   = 0x4e42444d41474943 // NBDMAGIC
	magicOption  = 0x49484156454f5054 // IHAVEOPT
	magicAnswer  = 0x0003e889045565a9
	magicRequest = 0x25609513
	magicReply   = 0x67446698

	fixedNewstyle = 1 // handshake flags, of both sides
	noZeroes      = 2

	optionAbort = 2
	optionGo    = 7

	answerAck         = 1
	answerInfo        = 3
	answerUnsupported = 1<<31 + 1
	infoExport        = 0
	hasFlags          = 1 << 0 // of an export
	sendFlush         = 1 << 2
	sendFUA           = 1 << 3
	commandRead       = 0
	commandWrite      = 1
	commandDisconnect = 2
	commandFlush      = 3
	commandFUA        = 1 // a flag
	errorIO           = 5
	errorInvalid      = 22
	maxOption         = 4 << 10  // bytes of an option
	maxLength         = 32 << 20 // bytes of a request, as all servers take them
)

var (
	be          = binary.BigEndian
	errProtocol = errors.New("no NBD client")
)

// serve serves one connection to its end. Requests are done one after the other: a flush comes
// after all writes before it.
func (d *Disk) serve(c net.Conn) {
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	if d.negotiate(r, w) != nil {
		return
	}
	for {
		if d.request(r, w) != nil {
			return
		}
	}
}

// negotiate goes on until the client asks for the disk.
func (d *Disk) negotiate(r *bufio.Reader, w *bufio.Writer) error {
	hello := be.AppendUint64(nil, magicHello)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, fixedNewstyle|noZeroes)
	if err := send(w, hello); err != nil {
		return err
	}
	var flags [4]byte
	if _, err := io.ReadFull(r, flags[:]); err != nil {
		return err
	}
	for {
		var h [16]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return err
		}
		option, n := be.Uint32(h[8:]), be.Uint32(h[12:])
		if be.Uint64(h[:]) != magicOption || n > maxOption {
			return errProtocol
		}
		if _, err := r.Discard(int(n)); err != nil { // there is one disk only, whatever its name
			return err
		}
		switch option {
		case optionGo:
			info := be.AppendUint16(nil, infoExport)
			info = be.AppendUint64(info, uint64(d.size))
			info = be.AppendUint16(info, hasFlags|sendFlush|sendFUA)
			return send(w, append(answer(option, answerInfo, info), answer(option, answerAck, nil)...))
		case optionAbort:
			return errors.Join(send(w, answer(option, answerAck, nil)), errProtocol)
		}
		if err := send(w, answer(option, answerUnsupported, nil)); err != nil {
			return err
		}
	}
}

func answer(option, kind uint32, data []byte) []byte {
	b := be.AppendUint64(nil, magicAnswer)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func send(w *bufio.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Flush()
}

// request does one request.
func (d *Disk) request(r *bufio.Reader, w *bufio.Writer) error {
	var h [28]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return err
	}
	flags, command := be.Uint16(h[4:]), be.Uint16(h[6:])
	cookie, at, n := h[8:16], be.Uint64(h[16:]), be.Uint32(h[24:])
	if be.Uint32(h[:]) != magicRequest || n > maxLength {
		return fmt.Errorf("request of %d bytes: %w", n, errProtocol)
	}
	if command == commandDisconnect {
		return io.EOF
	}
	var data []byte
	if command == commandWrite || command == commandRead {
		data = make([]byte, n)
	}
	if command == commandWrite {
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
	}
	failure := uint32(0)
	inside := at <= uint64(d.size) && uint64(n) <= uint64(d.size)-at
	switch {
	case command == commandFlush:
		d.flush()
	case !inside || data == nil:
		failure = errorInvalid
	case command == commandRead && d.read(data, int64(at)) != nil,
		command == commandWrite && d.write(data, int64(at), flags&commandFUA != 0) != nil:
		failure = errorIO
	}
	reply := be.AppendUint32(nil, magicReply)
	reply = be.AppendUint32(reply, failure)
	reply = append(reply, cookie...)
	if command == commandRead && failure == 0 {
		reply = append(reply, data...)
	}
	return send(w, reply)
}
