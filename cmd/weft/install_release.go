package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"weft/cmd/internal/service"
	"weft/overlay/release"
	"weft/overlay/status"
)

// pinnedKey is the release key that this device trusts, in its state directory.
const pinnedKey = "release.pub"

// checkRelease checks that this program is listed in a manifest signed by the owner of
// the network: with the key pinned at the last install or, the first time, with the key
// that came with the release.
func checkRelease(dir, state string) error {
	d, err := release.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if b, err := os.ReadFile(filepath.Join(state, pinnedKey)); err == nil {
		key, err := release.ParseKey(b)
		if err != nil {
			return fmt.Errorf("the release key pinned in %s: %w", state, err)
		}
		if !key.Equal(d.Key) {
			return &status.Error{Kind: status.KindDenied, Message: "this release is signed with another key than the one that this device has trusted since it joined",
				Hint: "if the owner of the network did that, remove " + filepath.Join(state, pinnedKey) + "; if not, somebody else controls the server"}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the pinned release key: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, sum, err := release.Sum(self)
	if err != nil {
		return err
	}
	if !d.Names("weft", sum) {
		return &status.Error{Kind: status.KindDenied, Message: "this program is not part of the release signed by the owner of the network", Hint: "download it again from your server's /install"}
	}
	return nil
}

// pinRelease saves the key for the next time.
func pinRelease(dir, state string) error {
	path := filepath.Join(state, pinnedKey)
	if fileExists(path) {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(dir, release.KeyName))
	if err != nil {
		return err
	}
	if err := service.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("pin the release key: %w", err)
	}
	return nil
}
