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

// A backup is one encrypted file with all state of the server: a consistent copy of the
// database, and the CAs with their keys. A server that is restored from it on another machine
// has the same identity, so devices reconnect by themselves.

const (
	database  = "weft.db"
	manifest  = "manifest.json"
	siteFile  = "site.pem"  // the console's self-signed certificate
	snapshots = "snapshots" // in the data directory: copies of the database for running backups

	// backupStamp is a file in the data directory. Its modification time is when the last
	// backup was complete.
	backupStamp = "last-backup"

	maxBackupFiles = 1000
	maxBackupFile  = 64 << 30 // bytes
)

// Manifest describes a backup. It is in the backup as manifest.json; backups from
// before 2026-11-30 have none.
type Manifest struct {
	Schema string    `json:"schema"` // "backup-manifest/1"
	Made   time.Time `json:"made"`
	// Audit is the head of the audit in the backup, nil if there are no records. Like the
	// output of weft-server audit head it can be saved elsewhere, to check later whether
	// records were changed.
	Audit *audit.Head `json:"audit"`
}

const manifestSchema = "backup-manifest/1"

// Snapshot writes a consistent copy of the database into the data directory, while the server
// keeps working, and returns its path. Only actors that can read that directory may do this.
// The caller removes the copy.
func (s *Service) Snapshot(ctx context.Context, a Actor) (string, error) {
	if err := opBackup.asks(a); err != nil {
		return "", err
	}
	if a.Via != ViaCLI {
		return "", fmt.Errorf("%s without access to the data directory: %w", opBackup.Name, ErrForbidden)
	}
	dir := filepath.Join(s.data, snapshots)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	// Remove copies that killed backups have left.
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

// Backup writes an encrypted backup of the server with the data directory data to w, and
// returns the manifest. snapshot calls that server's Service.Snapshot.
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

// NoteBackup records in the data directory data when a backup was complete, for LastBackup. It
// ignores errors, since the backup itself does not depend on it.
func NoteBackup(data string, at time.Time) {
	path := filepath.Join(data, backupStamp)
	os.WriteFile(path, nil, 0o644)
	os.Chtimes(path, time.Time{}, at)
}

// LastBackup returns when the last backup of the server with the data directory data was
// complete, the zero time for never. A restore does not bring the record of earlier backups
// back.
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

// ErrNotEmpty means that a restore would have to replace existing files.
var ErrNotEmpty = errors.New("the data directory is not empty; restore into a new one, or move this one away first")

// Restore makes the data directory dir of a server from a backup. dir must not exist or be
// empty. If the process is killed, dir has either everything or nothing.
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
	lock, err := datadir.Lock(ctx, tmp, 0) // so that sweepRestores of another restore leaves tmp alone
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

// unfinishedRestore returns the prefix of the names of directories in which restores into dir
// prepare their files.
func unfinishedRestore(dir string) string { return "." + filepath.Base(dir) + ".restore-" }

// sweepRestores removes the directories beside dir that killed restores have left, because
// they contain the keys of the CAs. It spares directories of running restores, which hold a
// lock in them.
func sweepRestores(dir string) {
	parent, err := os.OpenRoot(filepath.Dir(dir)) // so that symbolic links cannot lead elsewhere
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
			// Read to the end of the stream: only there does seal.Reader know that the backup
			// is complete.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if n >= maxBackupFiles || h.Typeflag != tar.TypeReg || h.Size > maxBackupFile {
			return fmt.Errorf("%q is not a file that belongs into a backup", h.Name)
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

// takeManifest reads the manifest of a backup that was unpacked into dir, and removes it,
// because it does not belong into a data directory. It returns the zero Manifest if the backup
// has none.
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
		err = fmt.Errorf("%s has format %q, and this weft-server reads only %s; restore the backup with the version of weft-server that made it", manifest, m.Schema, manifestSchema)
	}
	return m, errors.Join(err, os.Remove(path))
}

// beginAgain begins a new epoch of the network in the restored database, so that devices fetch
// everything anew. It appends a record of the restore to the audit.
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

// restoredFrom returns the value of the record of a restore. That record explains why heads
// that were saved elsewhere after the backup do not match the audit any more.
func restoredFrom(tx *store.Tx, network cert.NetworkID, m Manifest) (any, error) {
	end, err := tx.AuditEnd(network)
	if err != nil {
		return nil, err
	}
	if h := m.Audit; h != nil && (h.Seq != end.Seq || h.Hash != end.Hash) {
		return nil, fmt.Errorf("the audit in the backup ends with record %d, which does not match the manifest's head at record %d: the backup was put together from two backups", end.Seq, h.Seq)
	}
	return struct {
		Made *time.Time `json:"made"` // when the backup was made, nil if it does not say
		Last uint64     `json:"last"` // the last record in the backup
	}{orNil(m.Made), end.Seq}, nil
}
