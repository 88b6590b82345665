// Package storetest spares tests of the server the making of a schema: a database of its own
// for each costs 30 ms of a processor and 11 commits to disk, a copy of an empty one hardly
// anything. What makes a schema is tested by package store and by the programs.
package storetest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"weft/coord/store"
)

// Schema puts a database with the present schema and nothing in it into the data directory
// dir, which is made if need be. If dir has a database, Schema does nothing.
func Schema(t testing.TB, dir string) {
	t.Helper()
	empty, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "weft.db"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if os.IsExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(empty); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// schema returns the file of an empty database, made once per process.
var schema = sync.OnceValues(func() (b []byte, err error) {
	dir, err := os.MkdirTemp("", "weft-schema-")
	if err != nil {
		return nil, fmt.Errorf("make schema: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "weft.db")
	st, err := store.Open(context.Background(), store.Options{Path: path})
	if err != nil {
		return nil, err
	}
	st.Close() // the last connection writes all of the log into the file
	return os.ReadFile(path)
})
