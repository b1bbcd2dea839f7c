package control_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

func (l *lab) image(name string) *ashlarv1.Image {
	l.t.Helper()
	res, err := l.images.GetImage(ctxOf(l.t), req(&ashlarv1.GetImageRequest{Name: name}))
	if err != nil {
		l.t.Fatalf("get %s: %v", name, err)
	}
	return res.Msg
}

func TestUploadResume(t *testing.T) {
	l := newLab(t)
	data, sum := content(1 << 20)
	made := l.announce("disk", int64(len(data)), sum)
	if made.State != ashlarv1.Image_STATE_UPLOADING || made.Etag == "" || made.Uid == "" {
		t.Errorf("announced = %v", made)
	}
	if im, err := l.send("images/disk", 0, data[:300_000]); err != nil || im.UploadedBytes != 300_000 {
		t.Fatalf("first part: %v, %v", im, err)
	}
	_, err := l.send("images/disk", 300_001, data[300_001:])
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "300000 bytes so far")

	l.restartControl()
	if im := l.image("images/disk"); im.UploadedBytes != 300_000 {
		t.Fatalf("after a restart: %v", im)
	}
	if again := l.announce("disk", int64(len(data)), sum); again.Uid != made.Uid {
		t.Errorf("announced again: %v", again)
	}
	// From an earlier place than where it stands.
	im, err := l.send("images/disk", 200_000, data[200_000:])
	if err != nil || im.State != ashlarv1.Image_STATE_READY || im.UploadedBytes != int64(len(data)) {
		t.Fatalf("second part: %v, %v", im, err)
	}
	disk, err := os.ReadFile(l.core.ImageFile(im.Uid))
	if err != nil || !bytes.Equal(disk, data) {
		t.Errorf("file differs (%v)", err)
	}
	_, err = l.send("images/disk", 0, data)
	wantError(t, err, connect.CodeFailedPrecondition, "WRONG_STATE", "complete")
	_, err = l.images.CreateImage(ctxOf(t), req(&ashlarv1.CreateImageRequest{ImageId: "disk", Image: &ashlarv1.Image{SizeBytes: 5, Sha256: sum}}))
	wantError(t, err, connect.CodeAlreadyExists, "NAME_IN_USE", "another content")
}

func TestUploadHoles(t *testing.T) {
	l := newLab(t)
	const size = 64 << 20
	data := make([]byte, size)
	copy(data[32<<20:], "in the middle")
	sum := sha256.Sum256(data)
	im := l.announce("sparse", size, hex.EncodeToString(sum[:]))
	// Garbage first, to be replaced by a hole.
	if _, err := l.send(im.Name, 0, bytes.Repeat([]byte{1}, 1<<20)); err != nil {
		t.Fatal(err)
	}
	stream := l.images.UploadImage(ctxOf(t))
	for _, m := range []*ashlarv1.UploadImageRequest{
		{Name: im.Name},
		{Offset: 0, Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 32 << 20}},
		{Offset: 32 << 20, Piece: &ashlarv1.UploadImageRequest_Data{Data: []byte("in the middle")}},
		{Offset: 32<<20 + 13, Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 32<<20 - 13}},
	} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	res, err := stream.CloseAndReceive()
	if err != nil || res.Msg.State != ashlarv1.Image_STATE_READY {
		t.Fatalf("upload: %v, %v", res, err)
	}
	info, err := os.Stat(l.core.ImageFile(im.Uid))
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != size || used > 1<<20 {
		t.Errorf("file has %d bytes, %d of them on disk", info.Size(), used)
	}
}

func TestUploadDamaged(t *testing.T) {
	l := newLab(t)
	data, sum := content(500_000)
	im := l.announce("disk", int64(len(data)), sum)
	data[77] ^= 1
	_, err := l.send(im.Name, 0, data)
	wantError(t, err, connect.CodeDataLoss, "DIGEST_MISMATCH", "has been deleted")
	_, err = l.images.GetImage(ctxOf(t), req(&ashlarv1.GetImageRequest{Name: im.Name}))
	wantError(t, err, connect.CodeNotFound, "NO_SUCH_RESOURCE", im.Name)
	if _, images := l.core.Count(); images != 0 {
		t.Errorf("core still has %d images", images)
	}
	data[77] ^= 1
	l.announce("disk", int64(len(data)), sum)
	if _, err := l.send(im.Name, 0, data); err != nil {
		t.Errorf("upload after the damaged one: %v", err)
	}
}

func TestUploadOneAtATime(t *testing.T) {
	l := newLab(t)
	data, sum := content(1000)
	im := l.announce("disk", 1000, sum)
	stream := l.images.UploadImage(ctxOf(t))
	piece := &ashlarv1.UploadImageRequest{Name: im.Name, Piece: &ashlarv1.UploadImageRequest_Data{Data: data[:10]}}
	if err := stream.Send(piece); err != nil {
		t.Fatal(err)
	}
	for l.image(im.Name).UploadedBytes != 10 {
		time.Sleep(5 * time.Millisecond)
	}
	_, err := l.send(im.Name, 0, data)
	wantError(t, err, connect.CodeAborted, "UPLOAD_BUSY", "another call")
	_, err = l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: im.Name}))
	wantError(t, err, connect.CodeAborted, "UPLOAD_BUSY", "another call")
	if _, err := stream.CloseAndReceive(); err != nil {
		t.Fatal(err)
	}
	if im, err := l.send(im.Name, 10, data[10:]); err != nil || im.State != ashlarv1.Image_STATE_READY {
		t.Errorf("the other client goes on: %v, %v", im, err)
	}
}

func TestUploadWrong(t *testing.T) {
	l := newLab(t)
	_, sum := content(1)
	l.announce("disk", 1000, sum)
	type request = ashlarv1.UploadImageRequest
	for name, c := range map[string]struct {
		pieces []*request
		code   connect.Code
		field  string
	}{
		"nothing":        {nil, connect.CodeInvalidArgument, "name"},
		"no name":        {[]*request{{Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1}}}, connect.CodeInvalidArgument, "name"},
		"unknown":        {[]*request{{Name: "images/none"}}, connect.CodeNotFound, ""},
		"gap":            {[]*request{{Name: "images/disk", Offset: 7, Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1}}}, connect.CodeInvalidArgument, "offset"},
		"negative":       {[]*request{{Name: "images/disk", Offset: -1, Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1}}}, connect.CodeInvalidArgument, "offset"},
		"beyond":         {[]*request{{Name: "images/disk", Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1001}}}, connect.CodeInvalidArgument, "zeroes"},
		"far beyond":     {[]*request{{Name: "images/disk", Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1<<63 - 1}}}, connect.CodeInvalidArgument, "zeroes"},
		"less than none": {[]*request{{Name: "images/disk", Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: -1}}}, connect.CodeInvalidArgument, "zeroes"},
		"large piece":    {[]*request{{Name: "images/disk", Piece: &ashlarv1.UploadImageRequest_Data{Data: make([]byte, 1<<20+1)}}}, connect.CodeInvalidArgument, "data"},
		"other name":     {[]*request{{Name: "images/disk"}, {Name: "images/other"}}, connect.CodeInvalidArgument, "name"},
		"no order":       {[]*request{{Name: "images/disk", Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1}}, {Offset: 3, Piece: &ashlarv1.UploadImageRequest_Zeroes{Zeroes: 1}}}, connect.CodeInvalidArgument, "offset"},
	} {
		t.Run(name, func(t *testing.T) {
			stream := l.images.UploadImage(ctxOf(t))
			for _, p := range c.pieces {
				if stream.Send(p) != nil {
					break
				}
			}
			_, err := stream.CloseAndReceive()
			if connect.CodeOf(err) == connect.CodeNotFound && c.code == connect.CodeNotFound {
				return
			}
			if diff := cmp.Diff([]string{c.field}, wantError(t, err, c.code, "INVALID_FIELD", c.field)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCreateImageWrong(t *testing.T) {
	l := newLab(t)
	_, err := l.images.CreateImage(ctxOf(t), req(&ashlarv1.CreateImageRequest{ImageId: "-", Image: &ashlarv1.Image{SizeBytes: 17 << 40, Sha256: "ABC", Name: "x"}}))
	got := wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "hexadecimal")
	if diff := cmp.Diff([]string{"image_id", "image.name", "image.size_bytes", "image.sha256"}, got); diff != "" {
		t.Error(diff)
	}
	only := &ashlarv1.CreateImageRequest{ImageId: "a", Image: &ashlarv1.Image{SizeBytes: 1, Sha256: content64}, ValidateOnly: true}
	if _, err := l.images.CreateImage(ctxOf(t), req(only)); err != nil {
		t.Error(err)
	}
	if _, images := l.core.Count(); images != 0 {
		t.Errorf("validate_only made %d images", images)
	}
}

func TestImagePages(t *testing.T) {
	l := newLab(t)
	want := []string{"images/a", "images/b", "images/c", "images/d", "images/e"}
	for _, name := range want {
		l.announce(name[len("images/"):], 1, content64)
	}
	var got []string
	list := &ashlarv1.ListImagesRequest{PageSize: 2}
	for {
		res, err := l.images.ListImages(ctxOf(t), req(list))
		if err != nil {
			t.Fatal(err)
		}
		for _, im := range res.Msg.Images {
			got = append(got, im.Name)
		}
		if list.PageToken = res.Msg.NextPageToken; list.PageToken == "" {
			break
		}
		if len(res.Msg.Images) != 2 {
			t.Errorf("page of %d", len(res.Msg.Images))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err := l.machines.ListVirtualMachines(ctxOf(t), req(&ashlarv1.ListVirtualMachinesRequest{PageToken: "AAAA"}))
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "page_token")
	_, err = l.images.ListImages(ctxOf(t), req(&ashlarv1.ListImagesRequest{PageSize: -1}))
	wantError(t, err, connect.CodeInvalidArgument, "INVALID_FIELD", "page_size")
}

// What an earlier run has left half made is cleared up, and what has only lost its
// note is completed.
func TestImageLeftovers(t *testing.T) {
	l := newLab(t)
	data, sum := content(1000)
	im := l.announce("disk", 1000, sum)

	// Core ends just when it has sealed the image.
	l.core.Cut(hostcall.ImageSeal)
	_, err := l.send(im.Name, 0, data)
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
	for i := 0; l.image(im.Name).State != ashlarv1.Image_STATE_READY; i++ {
		if i == 500 {
			t.Fatalf("not completed: %v", l.image(im.Name))
		}
		time.Sleep(10 * time.Millisecond)
	}

	// Core ends just when it has made one, and when it has deleted one.
	l.core.Cut(hostcall.ImageCreate)
	_, err = l.images.CreateImage(ctxOf(t), req(&ashlarv1.CreateImageRequest{ImageId: "new", Image: &ashlarv1.Image{SizeBytes: 5, Sha256: sum}}))
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
	l.settles(1)
	l.core.Cut(hostcall.ImageDelete)
	_, err = l.images.DeleteImage(ctxOf(t), req(&ashlarv1.DeleteImageRequest{Name: im.Name}))
	wantError(t, err, connect.CodeUnavailable, "CORE_UNAVAILABLE", "core is restarting, try again")
	l.settles(0)
}

// settles waits until core and the API have n images.
func (l *lab) settles(n int) {
	l.t.Helper()
	for range 500 {
		res, err := l.images.ListImages(ctxOf(l.t), req(&ashlarv1.ListImagesRequest{}))
		if err != nil {
			l.t.Fatal(err)
		}
		if _, images := l.core.Count(); images == n && len(res.Msg.Images) == n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("not %d images", n)
}
