// Package reach tests the command behind NATs: it runs in the hosts of package natlab, as users run it.
package reach
