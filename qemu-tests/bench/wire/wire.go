// Package wire is what the two ends of the network benchmark say to each other: a
// connection starts with a byte that asks for a Service.
package wire

// A Service of a Server's.
type Service byte

// Services.
const (
	Sink   Service = iota + 1 // reads to the end, then answers with the number of bytes
	Source                    // writes for ever
	Echo                      // sends back what comes
	Count                     // answers with the number of datagrams that have come to the UDP port
)

// Sizes in bytes. A number is 8 bytes, little endian.
const (
	Chunk    = 64 << 10 // of one write or read of a stream
	Datagram = 64
)
