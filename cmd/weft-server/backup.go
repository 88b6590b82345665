package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
	"weft/overlay/cause"
	"weft/overlay/filelock"
)

func backupCmd() *cobra.Command {
	var out, keyFile string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "backup --key-file FILE [--output FILE]",
		Short: "Write all state of this server into one encrypted file",
		Long: `Write all state of this server into one encrypted file: the database
as it is at this moment, and the keys of its CAs. The server may run.

The key is made the first time. Keep it apart from the backups: both
together are enough to run your server, and without the key a backup is useless.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := backupKey(cmd, keyFile, true)
			if err != nil {
				return err
			}
			data, err := dataDir(cmd)
			if err != nil {
				return err
			}
			if out == "" {
				out = "weft-backup-" + time.Now().UTC().Format("20060102-150405")
			}
			var m ops.Manifest
			err = withServer(cmd, func(ctx context.Context, a *client.Client) error {
				return writeWhole(out, func(f *os.File) (err error) {
					p := cli.NewProgress(cmd.ErrOrStderr(), "backing up")
					defer p.End()
					m, err = ops.Backup(ctx, a.Snapshot, data, key, io.MultiWriter(f, p))
					return err
				})
			})
			if err != nil {
				return err
			}
			// weft-server doctor and the console show the time of the last backup.
			ops.NoteBackup(data, time.Now())
			if *asJSON {
				return cli.PrintObject(cmd.OutOrStdout(), "backup/1", map[string]any{"file": out, "audit_head": m.Audit})
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), out)
			return err
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write (default weft-backup-TIME)")
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with the key, which is made if it does not exist")
	return cmd
}

func restoreCmd() *cobra.Command {
	var keyFile string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "restore --data DIR --key-file FILE BACKUP",
		Short: "Make a server's data directory from a backup",
		Long: `Make a server's data directory from a backup. Start the server on it with the
address that the devices know, and they reconnect by themselves. Devices that
were deleted after the backup was made are deleted again as soon as one of the
others has connected.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: nil, // a file
		RunE: func(cmd *cobra.Command, a []string) error {
			key, err := backupKey(cmd, keyFile, false)
			if err != nil {
				return err
			}
			data, err := dataDir(cmd)
			if err != nil {
				return err
			}
			f, err := os.Open(a[0])
			if err != nil {
				return fmt.Errorf("read backup %s: %w", a[0], cause.Of(err))
			}
			defer f.Close()
			p := cli.NewProgress(cmd.ErrOrStderr(), "restoring")
			err = ops.Restore(cmd.Context(), io.TeeReader(f, p), key, data, time.Now())
			p.End()
			if err != nil {
				return err
			}
			if *asJSON {
				return cli.PrintObject(cmd.OutOrStdout(), "restore/1", map[string]string{"data": data})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored into %s; start it with: weft-server serve --data %s --url https://HOST:PORT\n", data, data)
			return err
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with the key that the backup was made with")
	return cmd
}

// minKey is the length of the shortest key or passphrase that is accepted.
const minKey = 16

// backupKey reads the key from a file. If create is set and there is no file, it makes one.
func backupKey(cmd *cobra.Command, path string, create bool) ([]byte, error) {
	if path == "" {
		return nil, usagef("name the file of the key: --key-file FILE (it is made the first time; store it apart from the backups)")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		raw := make([]byte, 30)
		rand.Read(raw)
		word := strings.ToLower(base32.StdEncoding.EncodeToString(raw))
		if err := writeWhole(path, func(f *os.File) error { _, err := f.WriteString(word + "\n"); return err }); err != nil {
			return nil, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "weft-server: made a backup key: %s. Store a copy of it apart from the backups and from this machine.\n", path)
		return []byte(word), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the backup key %s: %w", path, cause.Of(err))
	}
	if b = bytes.TrimSpace(b); len(b) < minKey {
		return nil, usagef("the key in %s is shorter than %d characters", path, minKey)
	}
	return b, nil
}

// unfinished is the pattern of the names that writeWhole's files have until they are complete.
const unfinished = ".weft-server-*.tmp"

// writeWhole makes a new file with mode 0600, and leaves either the complete file or
// none.
func writeWhole(path string, write func(*os.File) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write %s: it exists already", path)
	}
	dir := filepath.Dir(path)
	sweep(dir)
	f, err := newUnfinished(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, cause.Of(err))
	}
	defer f.Close()           // releases the lock too, after the file was renamed or removed
	defer os.Remove(f.Name()) // does nothing if the file was renamed
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// newUnfinished makes a file and locks it, so that sweep does not remove it while it is open.
func newUnfinished(dir string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(dir, unfinished) // 0600
		if err != nil {
			return nil, err
		}
		// A sweep of another process may have removed the file before it was locked: then try
		// again. Where files cannot be locked, sweep removes nothing.
		err = filelock.Try(f)
		_, gone := os.Stat(f.Name())
		if !errors.Is(err, filelock.ErrLocked) && gone == nil {
			return f, nil
		}
		f.Close()
	}
}

// sweep removes the files in dir that a killed writeWhole has left. It spares files that a
// running writeWhole has locked.
func sweep(dir string) {
	left, _ := fs.Glob(os.DirFS(dir), unfinished) // on errors it removes nothing, which does no harm
	for _, name := range left {
		path := filepath.Join(dir, name)
		f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if filelock.Try(f) == nil {
			os.Remove(path)
		}
		f.Close()
	}
}
