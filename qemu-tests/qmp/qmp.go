// Package qmp speaks the QEMU Machine Protocol (QEMU's qmp-spec) over a Unix
// socket, as far as the lab needs it: one command at a time.
package qmp

import (
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// A Client is a connection that has left negotiation mode.
type Client struct {
	c   net.Conn
	dec *json.Decoder
}

type reply struct {
	Greeting *json.RawMessage `json:"QMP"`
	Return   *json.RawMessage `json:"return"`
	Event    string           `json:"event"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// Dial connects to the socket at path.
func Dial(path string) (*Client, error) {
	c, err := net.DialTimeout("unix", path, 5*time.Second)
	if err != nil {
		return nil, err
	}
	q := &Client{c: c, dec: json.NewDecoder(c)}
	var r reply
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := q.dec.Decode(&r); err != nil {
		c.Close()
		return nil, fmt.Errorf("qmp %s: greeting: %w", path, err)
	}
	if r.Greeting == nil {
		c.Close()
		return nil, fmt.Errorf("qmp %s: no greeting", path)
	}
	if _, err := q.Do("qmp_capabilities", nil); err != nil {
		c.Close()
		return nil, err
	}
	return q, nil
}

// Close closes the connection.
func (q *Client) Close() error { return q.c.Close() }

// Do runs a command and returns what it returned.
func (q *Client) Do(command string, arguments any) (json.RawMessage, error) {
	m := map[string]any{"execute": command}
	if arguments != nil {
		m["arguments"] = arguments
	}
	q.c.SetDeadline(time.Now().Add(20 * time.Second))
	if err := json.NewEncoder(q.c).Encode(m); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	for {
		var r reply
		if err := q.dec.Decode(&r); err != nil {
			return nil, fmt.Errorf("qmp %s: %w", command, err)
		}
		switch {
		case r.Error != nil:
			return nil, fmt.Errorf("qmp %s: %s: %s", command, r.Error.Class, r.Error.Desc)
		case r.Return != nil:
			return *r.Return, nil
		}
	}
}
