package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
	"weft/overlay/fips"
	level "weft/overlay/report"
)

// doctorFIPS implements weft-server doctor --fips. It reports on the server that runs on the data
// directory. If none runs, or there is no data directory, it reports on this program.
func doctorFIPS(cmd *cobra.Command, data string, asJSON bool) error {
	running := answers(filepath.Join(data, "admin.sock"))
	f, err := askFIPS(cmd.Context(), data)
	mode := f.Status
	if err != nil {
		mode = fips.Now()
	}
	r := fips.Server(mode, f.Refused)
	if f.RefusedCodes > 0 && mode.Mode != fips.Off {
		r.Findings.Add("codes", level.Error, "sign in with a recovery code or a passkey, and set codes up anew on the account page; else weft-server users reset-second-factor",
			"%d of the people have codes that were set up outside FIPS mode (HMAC-SHA-1); they are refused", f.RefusedCodes)
	}
	switch {
	case err != nil:
		r.Findings.Add("server", level.Error, "weft-server doctor", "the server does not answer, so this is about the program itself: %v", err)
	case !running:
		r.Findings.Add("server", level.Warning, "start the server, then ask again", "no server runs: this is about the program itself")
	default:
		r.Running = true
	}
	r.Findings.Sort()
	err = cli.PrintFIPS(cmd.OutOrStdout(), "weft-server", r, asJSON)
	if err == nil && r.Findings.Broken() {
		err = errors.New("something that an audit asks for is missing")
	}
	return err
}

func askFIPS(ctx context.Context, data string) (ops.FIPS, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	a, err := client.Open(ctx, ops.Options{Data: data, Software: cli.Version()})
	if err != nil {
		return ops.FIPS{}, err
	}
	f, err := a.FIPS(ctx)
	return f, errors.Join(err, a.Close())
}
