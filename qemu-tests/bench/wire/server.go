package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
)

// A Server has all Services at one port of TCP, and counts what comes to that port of UDP.
type Server struct {
	l         net.Listener
	u         net.PacketConn
	datagrams atomic.Int64
}

// Serve answers at an address, until Close. Port 0 is one that is free.
func Serve(address string) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		return nil, err
	}
	s := &Server{l: l, u: u}
	go s.count()
	go s.accept()
	return s, nil
}

// Address is where it answers.
func (s *Server) Address() string { return s.l.Addr().String() }

// Close ends it. Connections that there are go on until the other side closes them.
func (s *Server) Close() { s.l.Close(); s.u.Close() }

func (s *Server) count() {
	for b := make([]byte, 2*Datagram); ; s.datagrams.Add(1) {
		if _, _, err := s.u.ReadFrom(b); err != nil {
			return
		}
	}
}

func (s *Server) accept() {
	for {
		c, err := s.l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			// The guest goes away when it has what it wants.
			_ = s.answer(c)
		}()
	}
}

// answer does what a connection asks for.
func (s *Server) answer(c net.Conn) error {
	b := make([]byte, Chunk)
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return err
	}
	switch Service(b[0]) {
	case Sink:
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, b)
		return errors.Join(err, number(c, n))
	case Source:
		for {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	case Echo:
		for {
			n, err := c.Read(b)
			if err != nil {
				return err
			}
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
	case Count:
		return number(c, s.datagrams.Load())
	}
	return fmt.Errorf("unknown service %d", b[0])
}

func number(w io.Writer, n int64) error {
	_, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(n)))
	return err
}
