package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files is a Core that keeps files in a directory, and nothing else.
type files struct{ dir string }

func (c files) path(id string) string { return filepath.Join(c.dir, id) }

func (c files) Do(_ context.Context, call hostcall.Call) (hostcall.Message, error) {
	if call.Method == hostcall.ImageDelete {
		return hostcall.Message{}, os.Remove(c.path(call.ID))
	}
	return hostcall.Message{}, nil
}

func (c files) File(_ context.Context, call hostcall.Call) (*os.File, error) {
	f, err := os.OpenFile(c.path(call.ID), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil && call.Method == hostcall.ImageCreate {
		err = f.Truncate(call.Size)
	}
	return f, err
}

const fuzzSize = 4096

// pieces writes requests one after the other, as FuzzUpload reads them.
func pieces(requests ...*ashlarv1.UploadImageRequest) []byte {
	var b bytes.Buffer
	for _, r := range requests {
		protodelim.MarshalTo(&b, r)
	}
	return b.Bytes()
}

// FuzzUpload sends any messages: the file keeps its size, what counts as uploaded is
// within it, and the image is READY only with the right content.
func FuzzUpload(f *testing.F) {
	want := bytes.Repeat([]byte("ab"), fuzzSize/4)
	want = append(want, make([]byte, fuzzSize-len(want))...)
	sum := sha256.Sum256(want)
	type request = ashlarv1.UploadImageRequest
	data := func(at int64, b []byte) *request {
		return &request{Name: "images/a", Offset: at, Piece: &ashlarv1.UploadImageRequest_Data{Data: b}}
	}
	zeroes := func(at, n int64) *request {
		return &request{Offset: at, Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: n}}
	}
	f.Add(pieces(data(0, want)), []byte{})
	f.Add(pieces(data(0, want[:fuzzSize/2]), zeroes(fuzzSize/2, fuzzSize/2)), []byte{})
	f.Add(pieces(data(0, want[:100])), pieces(data(50, want[50:])))
	f.Add(pieces(data(0, want[:100])), pieces(data(200, want[50:])))
	f.Add(pieces(data(0, nil), zeroes(0, 1<<62)), pieces(zeroes(-1, 1)))
	f.Add(pieces(data(0, bytes.Repeat([]byte("x"), fuzzSize))), pieces(&request{Name: "images/a"}))
	dir := f.TempDir()
	s, err := store.Open(filepath.Join(dir, "db"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, one, two []byte) {
		m, err := Load(s, files{dir}, feed.New(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		m.SetUsers(func(string) []string { return nil })
		create := &ashlarv1.CreateImageRequest{ImageId: "a", Image: &ashlarv1.Image{SizeBytes: fuzzSize, Sha256: hex.EncodeToString(sum[:])}}
		made, err := m.Create(t.Context(), create)
		if err != nil {
			t.Fatal(err)
		}
		path := files{dir}.path(made.Uid)
		for _, stream := range [][]byte{one, two} {
			r := bytes.NewReader(stream)
			m.Upload(t.Context(), func() (*ashlarv1.UploadImageRequest, error) {
				var req ashlarv1.UploadImageRequest
				if protodelim.UnmarshalFrom(r, &req) != nil {
					return nil, io.EOF
				}
				return &req, nil
			})
			check(t, m, path, want)
		}
		if _, err := m.Get("images/a"); err != nil {
			return // damaged, deleted
		}
		if err := m.Delete(t.Context(), "images/a", ""); err != nil {
			t.Error(err)
		}
	})
}

func check(t *testing.T, m *Manager, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	im, gerr := m.Get("images/a")
	switch {
	case gerr != nil && err == nil:
		t.Errorf("the image is gone, its file is not: %v", gerr)
	case gerr != nil:
	case len(got) != fuzzSize:
		t.Errorf("file has %d bytes", len(got))
	case im.UploadedBytes < 0 || im.UploadedBytes > fuzzSize:
		t.Errorf("uploaded %d", im.UploadedBytes)
	case im.State == ashlarv1.Image_STATE_READY && !bytes.Equal(got, want):
		t.Error("READY with another content")
	}
}

func TestFinishWithoutPiece(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sum := sha256.Sum256(make([]byte, 100))
	// All bytes had come, the check had not, when control ended.
	rec := store.Image{ID: "a", UID: newUID(), Size: 100, Uploaded: 100, SHA256: hex.EncodeToString(sum[:])}
	if err := s.Update(func(tx *store.Tx) error { return store.Images.Put(tx, rec) }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files{dir}.path(rec.UID), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Load(s, files{dir}, feed.New(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sent := false
	im, err := m.Upload(t.Context(), func() (*ashlarv1.UploadImageRequest, error) {
		if sent {
			return nil, io.EOF
		}
		sent = true
		return &ashlarv1.UploadImageRequest{Name: "images/a"}, nil
	})
	if err != nil || im.State != ashlarv1.Image_STATE_READY {
		t.Errorf("Upload = %v, %v, want READY", im, err)
	}
}

// An image that is on its way out, or not yet whole, takes no upload: it would be
// deleted after its upload has ended well. Nor is its name free yet, or taken for good.
func TestUploadOfHalfDeleted(t *testing.T) {
	for _, phase := range []store.Phase{store.Creating, store.Deleting} {
		dir := t.TempDir()
		s, err := store.Open(filepath.Join(dir, "db"))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		sum := sha256.Sum256(make([]byte, 100))
		rec := store.Image{ID: "a", UID: newUID(), Phase: phase, Size: 100, SHA256: hex.EncodeToString(sum[:])}
		if err := s.Update(func(tx *store.Tx) error { return store.Images.Put(tx, rec) }); err != nil {
			t.Fatal(err)
		}
		m, err := Load(s, files{dir}, feed.New(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		im, err := m.Upload(t.Context(), func() (*ashlarv1.UploadImageRequest, error) {
			return &ashlarv1.UploadImageRequest{Name: "images/a", Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 100}}, nil
		})
		if connect.CodeOf(err) != connect.CodeAborted {
			t.Errorf("upload of an image that is %s = %v, %v, want ABORTED", phase, im, err)
		}
		im, err = m.Create(t.Context(), &ashlarv1.CreateImageRequest{ImageId: "a", Image: &ashlarv1.Image{SizeBytes: rec.Size, Sha256: rec.SHA256}})
		if connect.CodeOf(err) != connect.CodeAborted {
			t.Errorf("the same again as one that is %s = %v, %v, want ABORTED", phase, im, err)
		}
	}
}

// The largest image that may be announced can be checked, on a disk that is not fast.
func TestCheckTime(t *testing.T) {
	const disk = 20 << 20 // bytes a second
	for _, size := range []int64{1, 1 << 30, 1 << 40, MaxSize} {
		if need := time.Duration(size/disk) * time.Second; checkTime(size) < need {
			t.Errorf("checkTime(%d) = %v, a slow disk needs %v", size, checkTime(size), need)
		}
	}
}

// A name is free when watchers have heard that its image is gone, not before.
func TestForgetTellsFirst(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rec := store.Image{ID: "a", UID: newUID(), Size: 100}
	if err := s.Update(func(tx *store.Tx) error { return store.Images.Put(tx, rec) }); err != nil {
		t.Fatal(err)
	}
	f := feed.New()
	m, err := Load(s, files{t.TempDir()}, f, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	im := m.byID["a"]
	forgotten := make(chan bool)
	err = s.Update(func(*store.Tx) error { // the store is slow meanwhile
		go func() {
			m.forget(im)
			close(forgotten)
		}()
		for free := false; !free; time.Sleep(time.Millisecond) {
			m.mu.Lock()
			free = m.byID["a"] == nil
			m.mu.Unlock()
		}
		if state, _ := f.Snapshot(); len(state) != 0 {
			t.Errorf("the name is free, watchers still see %v", state)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	<-forgotten
}

// An image whose deletion was refused, as it could not be stored, is not deleted later.
func TestRefusedDeletion(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	rec := store.Image{ID: "a", UID: newUID(), Size: 100, Phase: store.Ready, Complete: true}
	if err := s.Update(func(tx *store.Tx) error { return store.Images.Put(tx, rec) }); err != nil {
		t.Fatal(err)
	}
	m, err := Load(s, files{t.TempDir()}, feed.New(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.SetUsers(func(string) []string { return nil })
	if err := s.Close(); err != nil { // from here on nothing can be stored
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), "images/a", ""); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("Delete = %v, want UNAVAILABLE", err)
	}
	if im := m.byID["a"]; im.rec.Phase != store.Ready {
		t.Errorf("the image is %v after its deletion was refused", im.rec.Phase)
	}
}
