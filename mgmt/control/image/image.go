// Package image keeps images: kernels, initramfs archives and raw disks that clients
// upload in pieces, and that are checked against their digest before anything may
// use them.
//
// The order of writes makes a crash at any point harmless: the record of an image is
// stored before core makes its file, and removed after core has removed it; what an
// upload has brought is counted only after the disk has it.
package image

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ashlar-hv/ashlar/mgmt/api/ashlar/v1"
	"github.com/ashlar-hv/ashlar/mgmt/control/feed"
	"github.com/ashlar-hv/ashlar/mgmt/control/refuse"
	"github.com/ashlar-hv/ashlar/mgmt/control/store"
	"github.com/ashlar-hv/ashlar/mgmt/core/hostcall"
)

const (
	// Prefix of the names of images.
	Prefix = "images/"
	// Kind of the resource.
	Kind = "ashlar.v1.Image"
	// MaxSize of an image in bytes.
	MaxSize = 16 << 40
	// maxImages bounds how many there are: core lists them in one message.
	maxImages = 500
	// callTimeout bounds a call of core that does little; slowTimeout one that
	// may have much to write.
	callTimeout = time.Minute
	slowTimeout = 30 * time.Minute
	// slowDisk is how many bytes a second a disk reads at least.
	slowDisk = 16 << 20
)

var (
	idForm     = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// Core is what images need of core.
type Core interface {
	Do(context.Context, hostcall.Call) (hostcall.Message, error)
	File(context.Context, hostcall.Call) (*os.File, error)
}

// A Manager knows all images.
type Manager struct {
	store *store.Store
	core  Core
	feed  *feed.Feed
	log   *slog.Logger
	// users returns the names of what boots from the image with that ID.
	users func(id string) []string

	mu   sync.Mutex
	byID map[string]*image

	told map[string]bool // what Reconcile has complained about, by UID; its own
}

// An image is one image. Lock order: Manager.mu, then mu.
type image struct {
	mu   sync.Mutex
	rec  store.Image
	live int64 // bytes brought so far by the upload under way, >= what rec counts
	busy bool  // an upload, check or deletion is under way
	// leaving: a deletion looks whether the image is in use; nobody may begin to
	// use it.
	leaving bool
	gone    bool // deleted, or never came to be
}

// Load reads the images of earlier runs.
func Load(s *store.Store, core Core, f *feed.Feed, log *slog.Logger) (*Manager, error) {
	m := &Manager{store: s, core: core, feed: f, log: log, byID: map[string]*image{}, told: map[string]bool{}}
	err := s.View(func(tx *store.Tx) error {
		return store.Images.Each(tx, func(rec store.Image) error {
			im := &image{rec: rec, live: rec.Uploaded}
			m.byID[rec.ID] = im
			m.publish(im)
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("load images: %w", err)
	}
	return m, nil
}

// SetUsers says how to find out what boots from an image. To be called before use.
func (m *Manager) SetUsers(users func(id string) []string) { m.users = users }

// ParseName takes the ID out of `images/ID`.
func ParseName(field, name string) (string, error) {
	id, ok := strings.CutPrefix(name, Prefix)
	if !ok || !idForm.MatchString(id) {
		return "", refuse.Field(field, "is %q: write %sID", name, Prefix)
	}
	return id, nil
}

// newUID makes an identifier that core accepts (hostcall.ValidID).
func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// find returns the image called name; field says where the name stood.
func (m *Manager) find(field, name string) (*image, error) {
	id, err := ParseName(field, name)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	im := m.byID[id]
	m.mu.Unlock()
	if im == nil {
		return nil, refuse.NotFound(Kind, name)
	}
	return im, nil
}

// Get returns the image called name.
func (m *Manager) Get(name string) (*ashlarv1.Image, error) {
	im, err := m.find("name", name)
	if err != nil {
		return nil, err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.gone {
		return nil, refuse.NotFound(Kind, name)
	}
	return im.proto(), nil
}

// List returns all images by name.
func (m *Manager) List() []*ashlarv1.Image {
	m.mu.Lock()
	all := make([]*image, 0, len(m.byID))
	for _, im := range m.byID {
		all = append(all, im)
	}
	m.mu.Unlock()
	out := make([]*ashlarv1.Image, 0, len(all))
	for _, im := range all {
		im.mu.Lock()
		if !im.gone {
			out = append(out, im.proto())
		}
		im.mu.Unlock()
	}
	slices.SortFunc(out, func(a, b *ashlarv1.Image) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// A Ready image is one that can be used.
type Ready struct {
	UID  string
	Size int64
}

// Use returns the complete image called name, or a violation's description.
func (m *Manager) Use(name string) (Ready, string) {
	im, err := m.find("name", name)
	if err != nil {
		if connect.CodeOf(err) == connect.CodeInvalidArgument {
			return Ready{}, fmt.Sprintf("is %q: write %sID", name, Prefix)
		}
		return Ready{}, name + " does not exist: upload it first"
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	switch {
	case im.gone:
		return Ready{}, name + " does not exist: upload it first"
	case im.leaving, im.rec.Phase != store.Ready:
		return Ready{}, name + " is being deleted: choose another one"
	case !im.rec.Complete:
		return Ready{}, fmt.Sprintf("%s is not complete (%d of %d bytes): end its upload first", name, im.live, im.rec.Size)
	}
	return Ready{im.rec.UID, im.rec.Size}, ""
}

// Create announces an image (ImageService.CreateImage).
func (m *Manager) Create(ctx context.Context, req *ashlarv1.CreateImageRequest) (*ashlarv1.Image, error) {
	if err := validate(req); err != nil {
		return nil, err
	}
	rec := store.Image{
		ID: req.ImageId, UID: newUID(), Phase: store.Creating,
		Size: req.Image.SizeBytes, SHA256: req.Image.Sha256, CreateTime: time.Now(),
	}
	im := &image{rec: rec, busy: true}
	m.mu.Lock()
	old := m.byID[rec.ID]
	full := len(m.byID) >= maxImages
	if old == nil && !full && !req.ValidateOnly {
		m.byID[rec.ID] = im
	}
	m.mu.Unlock()
	switch {
	case old != nil:
		return again(old, rec)
	case full:
		return nil, refuse.New(connect.CodeResourceExhausted, refuse.LimitReached, fmt.Sprintf("there are %d images, the most there may be: delete some first", maxImages))
	case req.ValidateOnly:
		im.rec.Phase, im.rec.UID = store.Ready, ""
		return im.proto(), nil
	}
	// From here on the work is done whole, whether the client stays or not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	if err := m.make(ctx, im); err != nil {
		if outcomeKnown(err) {
			m.forget(im)
		} else { // Reconcile removes what there may be
			im.release()
		}
		return nil, refuse.Core(err, Prefix+rec.ID, func(field string) string {
			if field == "size" {
				return "image.size_bytes"
			}
			return ""
		})
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.proto(), nil
}

// outcomeKnown reports whether err is an answer: else core may have done what it was
// asked or not.
func outcomeKnown(err error) bool {
	var he *hostcall.Error
	return errors.As(err, &he)
}

// again answers a CreateImage of a name that is taken.
func again(old *image, rec store.Image) (*ashlarv1.Image, error) {
	old.mu.Lock()
	defer old.mu.Unlock()
	name := Prefix + rec.ID
	switch {
	case old.gone || old.rec.Phase != store.Ready: // whether by this client's call, which was cut off, or by another
		return nil, refuse.New(connect.CodeAborted, refuse.UploadBusy, name+" is being made or deleted just now: try again in a moment",
			&errdetails.ResourceInfo{ResourceType: Kind, ResourceName: name})
	case old.rec.Size == rec.Size && old.rec.SHA256 == rec.SHA256:
		return old.proto(), nil
	}
	return nil, refuse.Exists(Kind, name, " with another content: choose another name, or delete it first")
}

// make brings a new image into being: the record, the file, the record again.
func (m *Manager) make(ctx context.Context, im *image) error {
	if err := m.save(im); err != nil {
		return err
	}
	f, err := m.core.File(ctx, hostcall.Call{Method: hostcall.ImageCreate, ID: im.rec.UID, Size: im.rec.Size})
	if err != nil {
		return err
	}
	f.Close()
	if err := m.setPhase(im, store.Ready); err != nil {
		return err
	}
	im.release() // no earlier: nobody else may store it meanwhile
	m.publish(im)
	return nil
}

// forget takes an image out of memory and store. Watchers hear of it before the name is
// free: else they might take a new image of that name for deleted.
func (m *Manager) forget(im *image) {
	m.mu.Lock()
	im.mu.Lock()
	im.gone = true
	rec := im.rec
	im.mu.Unlock()
	if m.byID[rec.ID] == im {
		delete(m.byID, rec.ID)
		m.feed.Delete(Prefix + rec.ID)
	}
	m.mu.Unlock()
	err := m.store.Update(func(tx *store.Tx) error { return store.Images.Delete(tx, rec.UID) })
	if err != nil {
		m.log.Error("image not forgotten", "image", rec.ID, "error", err)
	}
}

// save stores the record as it is.
func (m *Manager) save(im *image) error {
	im.mu.Lock()
	rec := im.rec
	im.mu.Unlock()
	return m.store.Update(func(tx *store.Tx) error { return store.Images.Put(tx, rec) })
}

// publish tells watchers how the image is now.
func (m *Manager) publish(im *image) {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.gone || im.rec.Phase == store.Creating {
		return
	}
	m.feed.Put(Prefix+im.rec.ID, im.proto())
}

// proto is called with mu held.
func (im *image) proto() *ashlarv1.Image {
	p := &ashlarv1.Image{
		Name: Prefix + im.rec.ID, Uid: im.rec.UID, SizeBytes: im.rec.Size, Sha256: im.rec.SHA256,
		State: ashlarv1.Image_STATE_UPLOADING, UploadedBytes: im.live,
		CreateTime: timestamppb.New(im.rec.CreateTime),
	}
	if im.rec.Complete {
		p.State, p.UploadedBytes = ashlarv1.Image_STATE_READY, im.rec.Size
	}
	p.Etag = Etag(p)
	return p
}

// Etag makes the etag of a resource: a hash of its content (AIP-154).
func Etag(m proto.Message) string {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

// validate finds everything that is wrong with req.
func validate(req *ashlarv1.CreateImageRequest) error {
	var vs []refuse.Violation
	if !idForm.MatchString(req.ImageId) {
		vs = append(vs, refuse.Violation{Field: "image_id", Description: "write 1 to 63 lower-case letters, digits, - and ., starting with a letter or digit"})
	}
	if req.Image == nil {
		return refuse.Invalid(append(vs, refuse.Violation{Field: "image", Description: "is missing: say size_bytes and sha256"})...)
	}
	if n := req.Image.Name; n != "" && n != Prefix+req.ImageId {
		vs = append(vs, refuse.Violation{Field: "image.name", Description: "differs from image_id: leave it empty"})
	}
	if s := req.Image.SizeBytes; s < 1 || s > MaxSize {
		vs = append(vs, refuse.Violation{Field: "image.size_bytes", Description: fmt.Sprintf("is %d: 1 to %d bytes (16 TiB)", s, int64(MaxSize))})
	}
	if !digestForm.MatchString(req.Image.Sha256) {
		vs = append(vs, refuse.Violation{Field: "image.sha256", Description: "write the SHA-256 of the content as 64 lower-case hexadecimal digits"})
	}
	return refuse.Invalid(vs...)
}
