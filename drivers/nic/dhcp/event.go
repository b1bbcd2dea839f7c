package dhcp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxEvent bounds a line of the client in bytes.
const maxEvent = 4096

// An Event is what the client reports: a new or renewed Lease, or the loss of
// the one it had, with the reason.
type Event struct {
	Lease *Lease `json:"lease,omitempty"`
	Lost  string `json:"lost,omitempty"`
}

// A Reader reads the events of a client.
type Reader struct{ lines *bufio.Reader }

// NewReader returns a Reader on r, the client's standard output.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, maxEvent)} }

// Read returns the next event; what it says has been checked. After an error
// the client is not to be trusted any more.
func (r *Reader) Read() (Event, error) {
	line, err := r.lines.ReadSlice('\n')
	if err == io.EOF && len(line) == 0 {
		return Event{}, io.EOF
	}
	if err != nil {
		return Event{}, fmt.Errorf("read event of the DHCP client: %w", err)
	}
	return parseEvent(line)
}

func parseEvent(line []byte) (Event, error) {
	var e Event
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return Event{}, fmt.Errorf("read event of the DHCP client: %w", err)
	}
	if (e.Lease != nil) == (e.Lost != "") {
		return Event{}, errors.New("read event of the DHCP client: want either a lease or a loss")
	}
	if strings.ContainsFunc(e.Lost, func(c rune) bool { return c < ' ' || c > '~' }) {
		return Event{}, errors.New("read event of the DHCP client: the reason is not printable") // it goes to the console
	}
	if e.Lease != nil {
		if err := e.Lease.Check(); err != nil {
			return Event{}, fmt.Errorf("read event of the DHCP client: %w", err)
		}
	}
	return e, nil
}

// write reports an event.
func write(w io.Writer, e Event) error {
	b, err := json.Marshal(e)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("report DHCP event: %w", err)
	}
	return nil
}
