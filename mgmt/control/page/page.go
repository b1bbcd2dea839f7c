// Package page cuts lists into pages (AIP-158). A token is opaque to clients: the
// key of the last item that was given out, with the collection it belongs to and a
// checksum, so that a mixed-up token is refused instead of giving a wrong page.
package page

import (
	"encoding/base64"
	"hash/crc32"
	"strings"

	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
)

// Sizes of a page.
const (
	DefaultSize = 100
	MaxSize     = 1000
)

const maxToken = 512

// Token makes the token that goes on after key.
func Token(collection, key string) string {
	body := collection + "\x00" + key
	sum := crc32.ChecksumIEEE([]byte(body))
	b := []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
	return base64.RawURLEncoding.EncodeToString(append(b, body...))
}

// parse returns the key in a token of collection.
func parse(collection, token string) (key string, ok bool) {
	if len(token) > maxToken {
		return "", false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < 5 {
		return "", false
	}
	sum := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	if crc32.ChecksumIEEE(b[4:]) != sum {
		return "", false
	}
	name, key, found := strings.Cut(string(b[4:]), "\x00")
	if !found || name != collection {
		return "", false
	}
	return key, key != ""
}

// Of returns the page of items that size and token ask for, and the token of the
// next page, "" after the last. items are in the order of their keys: ascending, or
// descending where desc is set.
func Of[T any](collection string, items []T, key func(T) string, desc bool, size int32, token string) ([]T, string, error) {
	switch {
	case size < 0:
		return nil, "", refuse.Field("page_size", "is %d: 0 (for %d) or 1 to %d", size, DefaultSize, MaxSize)
	case size == 0:
		size = DefaultSize
	case size > MaxSize:
		size = MaxSize
	}
	if token != "" {
		last, ok := parse(collection, token)
		if !ok {
			return nil, "", refuse.Field("page_token", "is not one that this list has given: start without one")
		}
		n := 0
		for n < len(items) && (!desc && key(items[n]) <= last || desc && key(items[n]) >= last) {
			n++
		}
		items = items[n:]
	}
	if len(items) <= int(size) {
		return items, "", nil
	}
	items = items[:size]
	return items, Token(collection, key(items[size-1])), nil
}
