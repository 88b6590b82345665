package overlay_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
)

// snapshotOf is what a backup needs of a Service in this process.
func snapshotOf(svc *ops.Service) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) { return svc.Snapshot(ctx, ops.Root()) }
}

// The only node with the newer revocation list has joined after the backup was made. The
// restored server does not know the node, but takes the list.
func TestUnknownNodeSendsRevocations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stolen := w.node("stolen")
	id := stolen.Status().Self.ID
	stolen.stop()
	key := []byte("correct horse battery staple")
	var backup bytes.Buffer
	if _, err := ops.Backup(t.Context(), snapshotOf(w.svc), w.data, key, &backup); err != nil {
		t.Fatal(err)
	}
	late := w.node("late")
	lateID := late.Status().Self.ID
	d, err := w.svc.FindDevice(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: d.ID}); err != nil {
		t.Fatal(err)
	}
	list, err := w.auth.Roots.VerifyCRL(w.svc.CRL())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the node holds the list", func() bool { return late.CRLNumber() == list.Number })

	w.stopRelay()
	w.svc.Close()
	dir := filepath.Join(t.TempDir(), "restored")
	if err := ops.Restore(t.Context(), &backup, key, dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	if w.svc, err = ops.OpenService(t.Context(), ops.Options{Data: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.svc.FindDevice(t.Context(), id); err != nil {
		t.Fatalf("the backup does not hold the stolen device: %v", err)
	}
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startRelay(l)
	eventually(t, time.Minute, "the stolen device is gone again", func() bool {
		_, err := w.svc.FindDevice(t.Context(), id)
		return errors.Is(err, ops.ErrNotFound)
	})
	if _, err := w.svc.FindDevice(t.Context(), lateID); !errors.Is(err, ops.ErrNotFound) {
		t.Errorf("the restored server knows who joined later: %v", err)
	}
}

// A node that the restored server knows sends the list too, and repeats it if it was not
// taken the first time.
func TestMemberSendsRevocations(t *testing.T) {
	t.Parallel()
	var brought atomic.Int32
	w := newWorldOf(t, setup{api: func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && r.URL.Path == "/v1/crl" && brought.Add(1) == 1 {
				http.Error(rw, "not now", http.StatusServiceUnavailable)
				return
			}
			h.ServeHTTP(rw, r)
		})
	}})
	stolen := w.node("stolen")
	id := stolen.Status().Self.ID
	stolen.stop()
	member := w.node("member")
	memberID := member.Status().Self.ID
	key := []byte("correct horse battery staple")
	var backup bytes.Buffer
	if _, err := ops.Backup(t.Context(), snapshotOf(w.svc), w.data, key, &backup); err != nil {
		t.Fatal(err)
	}
	d, err := w.svc.FindDevice(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.DeleteDevice{ID: d.ID}); err != nil {
		t.Fatal(err)
	}
	list, err := w.auth.Roots.VerifyCRL(w.svc.CRL())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the node holds the list", func() bool { return member.CRLNumber() == list.Number })

	w.stopRelay()
	w.svc.Close()
	dir := filepath.Join(t.TempDir(), "restored")
	if err := ops.Restore(t.Context(), &backup, key, dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	if w.svc, err = ops.OpenService(t.Context(), ops.Options{Data: dir}); err != nil {
		t.Fatal(err)
	}
	l, err := w.listen()
	if err != nil {
		t.Fatal(err)
	}
	w.startRelay(l)
	eventually(t, time.Minute, "the stolen device is gone again", func() bool {
		_, err := w.svc.FindDevice(t.Context(), id)
		return errors.Is(err, ops.ErrNotFound)
	})
	if _, err := w.svc.FindDevice(t.Context(), memberID); err != nil {
		t.Errorf("the member: %v", err)
	}
}
