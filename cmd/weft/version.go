package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the build: -ldflags "-X main.version=1.2.3".
var version string

// buildVersion is version, or the commit that the binary was built from.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	rev, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			rev = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+"
			}
		}
	}
	if rev == "" {
		return "dev"
	}
	return "dev-" + rev + dirty
}

func versionCmd() *cobra.Command {
	var asJSON *bool
	cmd := &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this program and of the running daemon",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
			defer cancel()
			st, err := client(cmd).Status(ctx)
			daemon := st.Version
			if err != nil {
				daemon = ""
			}
			if *asJSON {
				return printJSON(cmd.OutOrStdout(), struct {
					Schema  string `json:"schema"`
					Version string `json:"version"`
					Daemon  string `json:"daemon"` // "" when none answers
					OS      string `json:"os"`
					Go      string `json:"go"`
				}{"version/1", buildVersion(), daemon, runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "weft %s %s/%s %s\n", buildVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			if daemon != "" && daemon != buildVersion() {
				fmt.Fprintf(cmd.OutOrStdout(), "daemon %s\n", plain(daemon))
			}
			return nil
		},
	}
	asJSON = jsonFlag(cmd)
	return cmd
}
