package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/webapi/client"
	"weft/overlay/cause"
)

// elsewhere adds the flags for a server on another machine to verbs.
func elsewhere(verbs ...*cobra.Command) []*cobra.Command {
	for _, v := range verbs {
		v.PersistentFlags().String("server", "", "use this server, https://HOST:PORT, with a token (WEFT_SERVER)")
		v.PersistentFlags().String("token-file", "", "with --server: file with the service's token; - is standard input (WEFT_TOKEN_FILE)")
	}
	return verbs
}

// here makes verbs refuse --server, with an error that contains why.
func here(why string, verbs ...*cobra.Command) []*cobra.Command {
	for _, v := range verbs {
		for _, name := range []string{"server", "token-file"} {
			v.Flags().String(name, "", "")
			v.Flags().SetAnnotation(name, noEnv, nil)
			v.Flags().MarkHidden(name)
		}
		run := v.RunE
		v.RunE = func(cmd *cobra.Command, a []string) error {
			if typed(cmd, "server") || typed(cmd, "token-file") {
				return usagef("%s runs on the machine of the server: %s; leave --server and --token-file out, and name the directory with --data DIR", cmd.CommandPath(), why)
			}
			return run(cmd, a)
		}
	}
	return verbs
}

// remoteServer returns a client for the server that --server names, nil if it names none. It does
// not connect yet.
func remoteServer(cmd *cobra.Command) (*client.Client, error) {
	if cmd.Flags().Lookup("token-file") == nil {
		return nil, nil
	}
	server, err := cmd.Flags().GetString("server")
	if err != nil {
		return nil, err
	}
	file, err := cmd.Flags().GetString("token-file")
	switch {
	case err != nil:
		return nil, err
	case server != "" && typed(cmd, "data") && typed(cmd, "server"):
		return nil, usagef("--server names a server elsewhere, --data a directory here: use one of them")
	case typed(cmd, "data"):
		return nil, nil
	case server == "" && typed(cmd, "token-file"):
		return nil, usagef("name the server of the token: --server https://HOST:PORT")
	case server == "":
		return nil, nil
	case file == "":
		return nil, usagef("--server needs a token: --token-file FILE; make one on the server with: weft-server tokens create USER")
	}
	token, err := readAPIToken(file, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	c, err := client.Remote(server, token)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// readAPIToken reads a token from a file that nobody else can read; "-" is standard
// input.
func readAPIToken(path string, stdin io.Reader) (string, error) {
	from := "standard input"
	if path != "-" {
		from = path
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrPermission) {
			return "", fmt.Errorf("read token file %s: permission denied; make it readable for the user who runs weft-server", path)
		}
		if err != nil {
			return "", fmt.Errorf("read token file %s: %w; make a token on the server with: weft-server tokens create USER", path, cause.Of(err))
		}
		defer f.Close()
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
			return "", fmt.Errorf("read token file %s: everybody on this machine can read or change it; use: chmod o= %s, and if others use this machine, make a new token", path, path)
		}
		stdin = f
	}
	b, err := io.ReadAll(io.LimitReader(stdin, cli.MaxToken))
	if err != nil {
		return "", fmt.Errorf("read token from %s: %w", from, cause.Of(err))
	}
	token, err := cli.CleanAPIToken(b)
	if err != nil {
		return "", usagef("%s: %w; a token of the API is one word that starts with weftapi1; make one on the server with: weft-server tokens create USER", from, err)
	}
	return token, nil
}
