package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite" // the driver "sqlite"; pure Go, so weft-server stays one static binary
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrNewer means that a newer weft-server wrote the database. Nothing has
// been written to it.
var ErrNewer = errors.New("the database was written by a newer weft-server; use that version or restore a backup")

// ErrDiskFull is wrapped by the error of a write that did not fit on the disk. The write
// changed nothing, reads go on, and the next write is tried as usual.
var ErrDiskFull = errors.New("the disk is full")

// openSQLite opens the database file, which it makes if it does not exist, with all pragmas
// set on every connection.
func openSQLite(path string) (*sql.DB, error) {
	// The file holds password hashes and who talks to whom. It gets mode 0600 before SQLite
	// opens it, and SQLite gives -wal and -shm the same mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	version, err := headerVersion(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	if version > schemaVersion() {
		return nil, fmt.Errorf("open database: schema %d, this program knows %d: %w", version, schemaVersion(), ErrNewer)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	q := url.Values{"_pragma": {
		"busy_timeout(10000)",
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(1)",
		"cache_size(-4096)", // KiB per connection
		"temp_store(MEMORY)",
	}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

// headerVersion reads user_version from the file's header (offset 60), so
// that a newer database is refused before SQLite touches it.
func headerVersion(f *os.File) (int, error) {
	var b [64]byte
	n, _ := f.ReadAt(b[:], 0)
	if n == 0 {
		return 0, nil
	}
	if n < len(b) || string(b[:15]) != "SQLite format 3" {
		return 0, fmt.Errorf("open database: %s is not a weft database", f.Name())
	}
	return int(binary.BigEndian.Uint32(b[60:])), nil
}

// schemaVersion is the number of migrations that this program knows.
func schemaVersion() int {
	files, _ := fs.Glob(migrations, "migrations/*.sql")
	return len(files)
}

// migrate brings the schema to the newest version, one migration at a time, each in one
// transaction together with its version number: if the process is killed, the next start
// continues from there. There are no downgrades.
func migrate(ctx context.Context, c *sql.Conn) error {
	var have int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted
	if err != nil {
		return err
	}
	if have > len(files) {
		return fmt.Errorf("open database: schema %d, this program knows %d: %w", have, len(files), ErrNewer)
	}
	if have > 0 && have < len(files) {
		if err := backupBefore(ctx, c, have); err != nil {
			return err
		}
	}
	for i := have; i < len(files); i++ {
		text, err := migrations.ReadFile(files[i])
		if err != nil {
			return err
		}
		script := fmt.Sprintf("BEGIN IMMEDIATE;\n%s\nPRAGMA user_version = %d;\nCOMMIT;", text, i+1)
		if _, err := c.ExecContext(ctx, script); err != nil {
			c.ExecContext(ctx, "ROLLBACK")
			return fmt.Errorf("migrate to schema %d: %w", i+1, err)
		}
	}
	if have < len(files) {
		// The version in the file's header is what a later, older program reads.
		if _, err := c.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			return fmt.Errorf("checkpoint after migration: %w", err)
		}
	}
	return nil
}

// backupBefore writes a copy of the database, DATABASE.schema-N, before the schema is
// changed.
func backupBefore(ctx context.Context, c *sql.Conn, schema int) error {
	var seq int
	var name, path string
	if err := c.QueryRowContext(ctx, "PRAGMA database_list").Scan(&seq, &name, &path); err != nil {
		return fmt.Errorf("find the database file: %w", err)
	}
	copy := fmt.Sprintf("%s.schema-%d", path, schema)
	// An existing copy was left by a migration that was killed, and may be incomplete.
	if err := os.Remove(copy); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("back up before migration: %w", err)
	}
	f, err := os.OpenFile(copy, os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("back up before migration: %w", err)
	}
	f.Close()
	if _, err := c.ExecContext(ctx, "VACUUM INTO $1", copy); err != nil {
		return fmt.Errorf("back up before migration to %s: %w", copy, err)
	}
	return nil
}

// isDiskFull reports whether err is SQLite's error for a full disk.
func isDiskFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// isUnique reports whether err is a violated UNIQUE or PRIMARY KEY constraint
// that names column (table.column).
func isUnique(err error, column string) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	code := e.Code()
	return (code == sqlite3.SQLITE_CONSTRAINT_UNIQUE || code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY) &&
		strings.Contains(e.Error(), column)
}
