package service

import (
	"fmt"
	"os"
	"path/filepath"
)

// PlaceProgram copies this very program to where a service expects it.
func PlaceProgram(to string) error {
	from, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if a, err := os.Stat(from); err == nil {
		if b, err := os.Stat(to); err == nil && os.SameFile(a, b) {
			return nil
		}
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read this program: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	if err := WriteFile(to, b, 0o755); err != nil {
		return fmt.Errorf("install the program: %w", err)
	}
	return nil
}
