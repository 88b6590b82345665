package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/cause"
	"weft/overlay/status"
)

func upCmd() *cobra.Command {
	var file, server, fingerprint string
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "up [TOKEN|-]",
		Short: "Join the network with a token or by approval, or start again after weft down",
		Long: `Join the network with a token or by approval, or start again after weft down.

The token is an argument, on standard input (-) or in a file. Every user of this
machine can see arguments while the command runs: that is fine for a one-time
token, but not for a reusable one.

With --server and no token it prints a code, and waits until somebody who is signed
in to the server's console has approved it, for 10 minutes at most. The server is
known by its certificate. One that this machine does not trust is shown by its
fingerprint, to be compared with what weft-server printed when it started:
on a terminal you are asked, elsewhere give it with --fingerprint.

If the owner of the network has people sign their devices in again from time to time,
weft status says when that is due. weft up then prints a code in the same way, for the
person whose device it is.`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, a []string) error {
			if fingerprint != "" && server == "" {
				return usagef("--fingerprint is that of a server: name it with --server")
			}
			if server != "" && (len(a) > 0 || file != "") {
				return usagef("a token names its server: give the token, or --server without one")
			}
			token, err := readUpToken(cmd, a, file)
			if err != nil {
				return err
			}
			var st status.Status
			if server != "" {
				st, err = askToJoin(cmd, server, fingerprint)
			} else {
				st, err = client(cmd).Up(cmd.Context(), token)
			}
			if err == nil && st.Self.SignIn != nil && st.Self.SignIn.Soon {
				st, err = signInAgain(cmd, st)
			}
			if err != nil {
				return err
			}
			if len(a) > 0 && a[0] != "-" {
				fmt.Fprintln(cmd.ErrOrStderr(), "weft: note: others on this machine can see the token in the process list; give a reusable one with: weft up -")
			}
			if *asJSON {
				return cli.PrintJSON(cmd.OutOrStdout(), st)
			}
			printUp(cmd.OutOrStdout(), st)
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", "read the token from this file; - is standard input")
	cmd.Flags().StringVar(&server, "server", "", "join this server, https://HOST:PORT, without a token: somebody signed in there approves it")
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "with --server: the SHA-256 of its certificate, as weft-server prints it at its start, or of the key of its CA")
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

// readUpToken returns "" if no token was given.
func readUpToken(cmd *cobra.Command, a []string, file string) (string, error) {
	switch {
	case len(a) > 0 && file != "":
		return "", usagef("give the token once: as an argument or with --token-file")
	case file != "":
		return readTokenFile(file, cmd.InOrStdin())
	case len(a) == 0:
		return "", nil
	case a[0] == "-":
		return readToken(cmd.InOrStdin(), "standard input")
	default:
		return checkToken([]byte(a[0]), "the argument")
	}
}

// readTokenFile reads a token from path; "-" is standard input.
func readTokenFile(path string, stdin io.Reader) (string, error) {
	if path == "-" {
		return readToken(stdin, "standard input")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return "", &status.Error{Kind: status.KindFailed, Message: "read token file " + path + ": permission denied", Hint: "make it readable for the user that runs weft"}
	}
	if err != nil {
		return "", &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("read token file %s: %v", path, cause.Of(err)), Hint: "make a token with: weft-server keys create"}
	}
	defer f.Close()
	return readToken(f, path)
}

// readToken reads one token and tolerates what editors add.
func readToken(r io.Reader, from string) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, cli.MaxToken))
	if err != nil {
		return "", &status.Error{Kind: status.KindFailed, Message: fmt.Sprintf("read token from %s: %v", from, cause.Of(err)), Hint: "name a file with a token; make one with: weft-server keys create"}
	}
	return checkToken(b, from)
}

// checkToken rejects text that is clearly not a token before it is sent. It never
// prints the text.
func checkToken(b []byte, from string) (string, error) {
	token, err := cli.CleanToken(b)
	switch {
	case errors.Is(err, cli.ErrNoToken):
		return "", &status.Error{Kind: status.KindUsage, Message: "there is no token in " + from, Hint: "make one with: weft-server keys create"}
	case err != nil:
		return "", &status.Error{Kind: status.KindUsage, Message: from + ": " + err.Error(), Hint: "a token is one word that starts with weft1; make one with: weft-server keys create"}
	}
	return token, nil
}

func printUp(w io.Writer, st status.Status) {
	switch st.State {
	case status.StatePending:
		fmt.Fprintln(w, "joined, waiting for the owner to approve this device; see: weft status")
	default:
		fmt.Fprintf(w, "%s is up at %s\n", cli.Plain(st.Self.FQDN), cli.Plain(st.Self.IPv4))
	}
}
