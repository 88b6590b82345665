package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/overlay/localapi"
)

// daemonGrace is how long a daemon that was just started may take to open its socket.
const daemonGrace = 5 * time.Second

func waitCmd() *cobra.Command {
	var timeout time.Duration
	var asJSON *bool
	cmd := &cobra.Command{
		Use:   "wait [NAME]",
		Short: "Wait until this node is connected, or until a peer answers",
		Long: `Wait until this node runs and is connected to its relay and, with NAME, until
that peer answers. Exit code 7 after the timeout.`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeNames,
		RunE: func(cmd *cobra.Command, a []string) error {
			name := ""
			if len(a) > 0 {
				name = a[0]
			}
			if timeout <= 0 {
				return usagef("--timeout must be positive")
			}
			start := time.Now()
			c, err := startedClient(cmd, min(timeout, daemonGrace))
			if err != nil {
				return err
			}
			left := max(timeout-time.Since(start), 100*time.Millisecond)
			// The daemon enforces the timeout; this one is for a daemon that hangs.
			ctx, cancel := context.WithTimeout(cmd.Context(), left+time.Second)
			defer cancel()
			if err := c.Wait(ctx, name, left); err != nil || !*asJSON {
				return err
			}
			return statusJSON(cmd, c)
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	return cmd
}

// startedClient returns a client for a daemon that listens, and waits for it up to
// grace: scripts start with "weft run & weft wait".
func startedClient(cmd *cobra.Command, grace time.Duration) (*localapi.Client, error) {
	end := time.Now().Add(grace)
	for {
		c := client(cmd) // again each time: another daemon may have started
		if answers(c.Path()) {
			return c, nil
		}
		if time.Now().After(end) {
			return c, c.Health(cmd.Context())
		}
		if err := sleep(cmd.Context(), 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
