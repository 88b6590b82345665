package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"weft/coord/audit"
	"weft/overlay/cert"
)

// Check reads the whole database at path, also while a server has it open, and returns the
// first damage as an error. The error wraps fs.ErrNotExist if there is no database.
func Check(ctx context.Context, path string) error {
	db, err := openToRead(path)
	if err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	defer db.Close()
	var found string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found); err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	if found != "ok" {
		return fmt.Errorf("check database: %s", found)
	}
	return nil
}

// openToRead opens the database at path read-only.
func openToRead(path string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)"}}
	return sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
}

// AuditHeadIn returns the head of the audit in the database at path, of any schema; nil if it
// has no audit records.
func AuditHeadIn(ctx context.Context, path string) (*audit.Head, error) {
	db, err := openToRead(path)
	if err != nil {
		return nil, fmt.Errorf("read the audit's head: %w", err)
	}
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the audit's head: %w", err)
	}
	r := &Reader{conn: c, stmts: map[string]*sql.Stmt{}, ctx: ctx}
	defer r.close()
	var there bool
	if err := r.row(`SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'audit_heads')`, nil, &there); err != nil || !there {
		return nil, err
	}
	var b []byte
	if err := r.row(`SELECT network_id FROM networks`, nil, &b); err != nil {
		return nil, fmt.Errorf("read the audit's head: %w", err)
	}
	var id cert.NetworkID
	copy(id[:], b)
	h, err := r.AuditHead(id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return &h, err
}
