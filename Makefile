# Every target is one command that .ci/run calls by the same name. Tool versions are pinned here and nowhere else.
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
PLATFORMS = linux/arm64 darwin/arm64 windows/amd64
FUZZTIME ?= 2s
FUZZLONG ?= 1h
SOAK ?= 30m
SOAKFROM ?= 5m
NETTEST ?= 5
CHAOS ?= 1h
ENDS ?= 50000
CREDIT ?= 5000
KILLS ?= 40
CPUS := $(shell getconf _NPROCESSORS_ONLN)

.PHONY: test 32bit race grid reach nettest nightly vet lint fuzz fuzz-long soak examples demo page bench tidy cover fmt vuln

fmt: ; gofmt -l -w . && go fix ./... && cd bench && go fix ./...

test: ; go test ./...

race: ; go test -race -count=1 -skip Nettest ./codes ./codec/... ./internal/frame ./psk ./resume ./session ./record/... ./bulk ./transfer ./transfer/source ./transfer/internal/staging ./node/... ./peerlanetest ./internal/... ./diagnostics/... .

# Hosts behind every pair of NATs. Fails where the machine allows no network namespaces.
reach:
	go test -count=1 -v ./internal/test/natlab -args -natlab
	go test -count=1 -v -parallel 8 ./internal/test/reach -args -natlab -matrix

grid: ; go test -count=1 ./internal/test/slowlink -args -grid

nettest:
	go test -race -count=1 -run 'Nettest' -args -nettest.count=$(NETTEST)
	go test -race -count=1 -run 'Nettest|ConnIsANetConn' ./resume ./session ./bulk ./internal/faultnet

# What takes hours: docs/NIGHTLY.md says how to read a failure, and keeps what was run.
nightly:
	go test ./internal/test/chaos -count=1 -timeout 0 -v -args -chaos.for=$(CHAOS)
	go test ./session -count=1 -timeout 0 -cpu $(CPUS) -run TestNothingIsLostSilently -args -ends.seeds=$(ENDS)
	go test ./session -count=1 -timeout 0 -cpu $(CPUS) -run TestCreditIsNeverLost -args -credit.seeds=$(CREDIT)
	go test ./transfer -count=1 -timeout 0 -run TestATransferSurvivesTheDeathOfItsProcesses -args -kills=$(KILLS) -size=268435456
	go test -tags examples ./examples/replicate -count=1 -timeout 0 -args -kills=$(KILLS)
	go test . -count=1 -timeout 0 -run Nettest -args -nettest.count=50
	go test ./internal/test/reach -count=1 -timeout 0 -v -parallel 8 -run 'TestScene|TestASessionGoesOn' -args -natlab -matrix -scenes
	go test ./internal/test/reach -count=1 -timeout 0 -v -run 'TestASessionThroughNATs|TestMuch' -args -natlab -matrix -scenes -much 1073741824
	go test ./internal/test/reach -count=1 -timeout 0 -v -run TestSendAndGetThroughNATs -args -natlab -matrix -tries 10 -pairs 4
	go test ./internal/test/reach -count=1 -timeout 0 -v -run TestSendAndGetThroughNATs -args -natlab -matrix -tries 10 -loss 0.03 -pairs 6
	for rtt in 0 40ms; do go test ./internal/test/reach -count=1 -timeout 0 -v -run TestSendAndGetThroughNATs -args -natlab -matrix -tries 10 -size 200000000 -rtt $$rtt || exit 1; done
	go test ./internal/test/reach -count=1 -timeout 0 -v -run TestIdleCommandsCostLittle -args -natlab -matrix -idle 15m
	go test . -count=1 -timeout 0 -run TestMeasureAttacks -args -attacks.measure=4s
	go test . -count=1 -timeout 0 -run TestSurviveEveryCut -args -survive.cuts=200
	go test . -count=1 -timeout 0 -v -run TestSurviveTheCutsOfALimitedRelay -args -survive.relayed=1073741824
	go test ./node/dht -count=1 -timeout 0 -v -run TestIdlePeersCostLittleAndGrowNothing -args -idle.for=24h
	go test ./node -count=1 -timeout 0 -v -run TestACrowdHasTenThousandStreams -args -crowd 1000

vet:
	go vet -tags examples,browser ./...
	cd bench && go vet ./...
	for p in $(PLATFORMS); do GOOS=$${p%/*} GOARCH=$${p#*/} go vet ./codes ./codec/... ./internal/frame ./internal/flow ./psk ./resume ./session ./record/... ./bulk ./transfer/... ./internal/b3tree ./internal/choice ./internal/deadline ./internal/faultnet ./internal/nat ./internal/test/natlab || exit 1; done
	GOOS=windows GOARCH=amd64 go vet . ./diagnostics/... ./node/... # which need the whole of libp2p: one platform, the one that differs most

# int has 32 bits on the small machines at home, and files may be larger.
32bit: ; GOARCH=386 go test -count=1 ./internal/frame ./internal/flow ./internal/fair ./psk ./resume ./session ./record ./bulk ./transfer/source ./transfer/internal/staging

lint: ; go run $(GOLANGCI) run ./...

vuln: ; go run $(GOVULNCHECK) ./...

fuzz: ; .ci/fuzz $(FUZZTIME)

fuzz-long: ; .ci/fuzz total $(FUZZLONG)

soak: ; go test ./internal/test/soak -count=1 -timeout 0 -v -args -soak.for=$(SOAK) -soak.from=$(SOAKFROM)

# The examples are programs, each with a test binary to link: go test ./... compiles them, and this runs them.
examples: ; go test -count=1 -run Example ./... && go test -count=1 -tags examples ./examples/...

# The page of package diagnostics in Debian's Chromium. Pictures of it are left in internal/test/page/shots.
page:
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	go test -count=1 -v -tags browser -run TestThePageInABrowser ./diagnostics

demo: ; go run ./cmd/peerlane demo && go test -count=1 ./cmd/peerlane -run 'TestScripts/^demo$$' -args -demo

bench:
	go test -run '^$$' -bench . -benchtime 1x ./codes ./internal/frame ./psk ./resume ./session ./record ./bulk ./transfer ./transfer/source ./transfer/internal/staging ./internal/b3tree .
	cd bench && go test -count=1 ./... && go run . -quick -rounds 3 && go run . -records -quick -rounds 2 && go run . -files -quick -rounds 2

tidy:
	go mod tidy -diff
	cd bench && go mod tidy -diff

cover: ; go test -coverprofile=cover.out ./... && .ci/cover cover.out
