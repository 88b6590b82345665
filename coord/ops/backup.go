package ops

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"weft/coord/audit"
	"weft/coord/ca"
	"weft/coord/datadir"
	"weft/coord/seal"
	"weft/coord/store"
	"weft/overlay/cert"
	"weft/overlay/filelock"
)

// A backup is one encrypted file with all state of the server: the database, as it was
// at one moment, and the keys of the CAs. Restored on another machine it is the same
// server: devices reconnect by themselves.

const (
	database  = "weft.db"
	manifest  = "manifest.json"
	siteFile  = "site.pem"  // the console's own certificate
	snapshots = "snapshots" // in the data directory, for backups that are being made

	// backupStamp is a file in the data directory whose time is that of the last backup.
	backupStamp = "last-backup"

	maxBackupFiles = 1000
	maxBackupFile  = 64 << 30
)

// Manifest describes a backup. It is in the backup as manifest.json; backups from
// before 2026-11-30 have none.
type Manifest struct {
	Schema string    `json:"schema"` // "backup-manifest/1"
	Made   time.Time `json:"made"`
	// Audit is the head of the audit in the backup, nil when nothing was recorded.
	// It serves like the output of weft-server audit head: saved elsewhere, it shows
	// later whether records were changed since.
	Audit *audit.Head `json:"audit"`
}

const manifestSchema = "backup-manifest/1"

// Snapshot writes a consistent copy of the database into the data directory, while the
// server goes on. It is for actors that can read that directory. The caller removes the
// copy.
func (s *Service) Snapshot(ctx context.Context, a Actor) (string, error) {
	if err := opBackup.asks(a); err != nil {
		return "", err
	}
	if a.Via != ViaCLI {
		return "", fmt.Errorf("%s from elsewhere: %w", opBackup.Name, ErrForbidden)
	}
	dir := filepath.Join(s.data, snapshots)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	// A backup that was killed may have left copies.
	if old, err := filepath.Glob(filepath.Join(dir, "*.db")); err == nil {
		for _, path := range old {
			if fi, err := os.Stat(path); err == nil && s.now().Sub(fi.ModTime()) > time.Hour {
				os.Remove(path)
			}
		}
	}
	var b [8]byte
	rand.Read(b[:])
	path := filepath.Join(dir, fmt.Sprintf("%x.db", b))
	if err := s.store.Backup(ctx, path); err != nil {
		os.Remove(path)
		return "", err
	}
	return path, nil
}

// Backup writes an encrypted backup of the server with the data directory data
// to w, and returns its manifest. snapshot is that
// server's Service.Snapshot.
func Backup(ctx context.Context, snapshot func(context.Context) (string, error), data string, passphrase []byte, w io.Writer) (Manifest, error) {
	m := Manifest{Schema: manifestSchema, Made: time.Now().UTC().Truncate(time.Second)}
	copied, err := snapshot(ctx)
	if err != nil {
		return m, err
	}
	defer os.Remove(copied)
	if m.Audit, err = store.AuditHeadIn(ctx, copied); err != nil {
		return m, fmt.Errorf("back up %s: %w", database, err)
	}
	return m, writeBackup(m, copied, data, passphrase, w)
}

// NoteBackup notes in the data directory data that a backup was complete at a time. The
// backup is good without it: it is for LastBackup.
func NoteBackup(data string, at time.Time) {
	path := filepath.Join(data, backupStamp)
	os.WriteFile(path, nil, 0o644)
	os.Chtimes(path, time.Time{}, at)
}

// LastBackup returns when the last backup of the server with the data directory data was
// complete, zero for never. A server that was restored has had none.
func LastBackup(data string) time.Time {
	fi, err := os.Stat(filepath.Join(data, backupStamp))
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

func writeBackup(m Manifest, snapshot, data string, passphrase []byte, w io.Writer) error {
	sealed, err := seal.NewWriter(w, passphrase)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	t := tar.NewWriter(sealed)
	b, err := json.Marshal(m)
	if err == nil {
		err = t.WriteHeader(&tar.Header{Name: manifest, Mode: 0o600, Size: int64(len(b)), ModTime: m.Made})
	}
	if err == nil {
		_, err = t.Write(b)
	}
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := pack(t, snapshot, database); err != nil {
		return fmt.Errorf("back up %s: %w", database, err)
	}
	keys, err := os.ReadDir(filepath.Join(data, "ca"))
	if err != nil {
		return fmt.Errorf("back up the CAs: %w", err)
	}
	for _, e := range keys {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := pack(t, filepath.Join(data, "ca", e.Name()), "ca/"+e.Name()); err != nil {
			return fmt.Errorf("back up %s: %w", e.Name(), err)
		}
	}
	if err := pack(t, filepath.Join(data, siteFile), siteFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("back up %s: %w", siteFile, err)
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := sealed.Close(); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

func pack(t *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: fi.Size(), ModTime: fi.ModTime()}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// ErrNotEmpty refuses to restore over something.
var ErrNotEmpty = errors.New("the data directory is not empty; restore into a new one, or move this one away first")

// Restore makes the data directory of a server from a backup. dir must not exist, or be
// empty. Whenever the process is killed, dir holds either the whole server or nothing.
func Restore(ctx context.Context, r io.Reader, passphrase []byte, dir string, now time.Time) (err error) {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("restore into %s: %w", dir, ErrNotEmpty)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore into %s: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	sweepRestores(dir)
	tmp, err := os.MkdirTemp(filepath.Dir(dir), unfinishedRestore(dir)+"*")
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(tmp)
		}
	}()
	lock, err := datadir.Lock(ctx, tmp, 0) // against a sweep, until it has its name
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer filelock.Release(lock)
	opened, err := seal.NewReader(r, passphrase)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	if err := unpack(opened, tmp); err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	m, err := takeManifest(tmp)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	if err := beginAgain(ctx, tmp, m, now); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore into %s: %w", dir, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("restore into %s: %w", dir, err)
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer parent.Close()
	return parent.Sync()
}

// unfinishedRestore is what directories that become dir are called before they
// are whole, up to a random ending.
func unfinishedRestore(dir string) string { return "." + filepath.Base(dir) + ".restore-" }

// sweepRestores removes the directories beside dir that killed restores have left: they
// hold the keys of the CAs. A running restore holds the lock of its directory.
func sweepRestores(dir string) {
	parent, err := os.OpenRoot(filepath.Dir(dir)) // links do not lead out of it
	if err != nil {
		return
	}
	defer parent.Close()
	list, _ := fs.ReadDir(parent.FS(), ".")
	for _, e := range list {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), unfinishedRestore(dir)) {
			continue
		}
		lock, err := parent.OpenFile(filepath.Join(e.Name(), datadir.LockFile), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			continue
		}
		if filelock.Try(lock) == nil {
			parent.RemoveAll(e.Name())
		}
		filelock.Release(lock)
	}
}

// unpack writes the files of a backup below dir, and nowhere else.
func unpack(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Mkdir("ca", 0o700); err != nil {
		return err
	}
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			// To the end of the stream: only there is it known to be whole.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if n >= maxBackupFiles || h.Typeflag != tar.TypeReg || h.Size > maxBackupFile {
			return fmt.Errorf("%q is not a file that a backup holds", h.Name)
		}
		f, err := root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, t)
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return err
		}
	}
}

// takeManifest reads the manifest of a backup that was unpacked into dir, and
// removes it: it is the backup's, not the server's. The zero one is of a backup
// that has none.
func takeManifest(dir string) (m Manifest, err error) {
	path := filepath.Join(dir, manifest)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err == nil && m.Schema != manifestSchema {
		err = fmt.Errorf("%s is of format %q, this weft-server reads %s; restore it with the version of weft-server that made it", manifest, m.Schema, manifestSchema)
	}
	return m, errors.Join(err, os.Remove(path))
}

// beginAgain makes what was restored the network's next epoch. Its audit goes on
// from where the backup ends, with the record that it was restored.
func beginAgain(ctx context.Context, dir string, m Manifest, now time.Time) error {
	auth, err := ca.Open(filepath.Join(dir, "ca"), false, now)
	if err != nil {
		return err
	}
	restored := record{actor: System(), op: opNetworkRestore.Name, target: target{kind: "network", id: auth.ID.String()}, at: now}
	st, err := store.Open(ctx, store.Options{
		Path: filepath.Join(dir, database), Log: slog.New(slog.DiscardHandler),
		Seal: func(tx *store.Tx, _ []any) error { return appendAudit(tx, auth.ID, auth, now, []record{restored}) },
	})
	if err != nil {
		return err
	}
	defer st.Close()
	var b [8]byte
	rand.Read(b[:])
	err = st.Write(ctx, func(tx *store.Tx) error {
		n, err := tx.Network()
		if err != nil {
			return err
		}
		if n.ID != auth.ID {
			return errors.New("the database and the CAs in the backup belong to different networks")
		}
		if restored.after, err = restoredFrom(tx, auth.ID, m); err != nil {
			return err
		}
		tx.Note(restored)
		return tx.Restored(n.ID, binary.BigEndian.Uint64(b[:])>>1, now) // SQL integers are signed
	})
	if err != nil {
		return err
	}
	return st.Close()
}

// restoredFrom is what the audit says of a restored backup. A head that was kept
// elsewhere and is of later than the backup does not fit any more from here on, and
// this record is why.
func restoredFrom(tx *store.Tx, network cert.NetworkID, m Manifest) (any, error) {
	end, err := tx.AuditEnd(network)
	if err != nil {
		return nil, err
	}
	if h := m.Audit; h != nil && (h.Seq != end.Seq || h.Hash != end.Hash) {
		return nil, fmt.Errorf("the audit in the backup ends with record %d, and its manifest says %d: the backup was put together from two", end.Seq, h.Seq)
	}
	return struct {
		Made *time.Time `json:"made"` // of the backup, nil when it does not say
		Last uint64     `json:"last"` // record in it
	}{orNil(m.Made), end.Seq}, nil
}
