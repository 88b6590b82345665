package main

import (
	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/fips"
	level "weft/overlay/report"
	"weft/overlay/status"
)

// doctorFIPS is weft doctor --fips: about the daemon, or about this program if none
// answers.
func doctorFIPS(cmd *cobra.Command, asJSON bool) error {
	st, err := client(cmd).Status(cmd.Context())
	mode := st.FIPS
	if err != nil || mode.Mode == "" {
		mode = fips.Now()
	}
	r := fips.Node(mode, tunnels(st, mode.Mode), noPackets(st))
	switch {
	case err != nil:
		r.Findings.Add("daemon", level.Warning, "weft run, then ask again", "no daemon answers: this is about the program itself")
	case st.FIPS.Mode == "":
		r.Findings.Add("daemon", level.Error, "restart the daemon: "+restartDaemon(), "the daemon is of an earlier version, which does not say whether it is in FIPS mode; this is about the program itself")
	default:
		r.Running = true
	}
	r.Findings.Sort()
	if err := cli.PrintFIPS(cmd.OutOrStdout(), "weft", r, asJSON); err != nil {
		return err
	}
	if r.Findings.Broken() {
		return exitCode(1)
	}
	return nil
}

// tunnels are the peers with keys.
func tunnels(st status.Status, mode fips.Mode) (list []fips.Peer) {
	for _, p := range st.Peers {
		if p.KeyExchange != "" {
			with, inside := fips.Suite(mode, p.Suite)
			list = append(list, fips.Peer{Name: p.Name, KeyExchange: p.KeyExchange, Suite: with, Inside: inside})
		}
	}
	return list
}

// noPackets is why the daemon carries no packets in FIPS mode, "" if it does.
func noPackets(st status.Status) string {
	for _, h := range st.Health {
		if h.Code == status.CodeFIPS && st.FIPS.Mode == fips.Only {
			return h.Message
		}
	}
	return ""
}
