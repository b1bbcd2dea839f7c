# Ashlar: `make help` lists what there is.

export CGO_ENABLED = 0
export GOFLAGS = -mod=readonly
SHELL = /bin/sh
.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.NOTPARALLEL:

GO      = go
OUT     = out
LAB     = $(OUT)/bin/ashlar-lab
VERSION = $(shell cat VERSION)
# Debian's kernel source where apt has none (make setup fetches it there).
CACHE   = $(or $(ASHLAR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ashlar)
ifeq ($(KERNEL_SRC)$(wildcard /usr/src/linux-source-6.12.tar.xz),)
export KERNEL_SRC = $(wildcard $(CACHE)/source/linux-source-6.12.tar.xz)
endif

sources = $(shell find $(1) -type f ! -name '*_test.go' ! -name '*.md' ! -path '*/testdata/*' 2>/dev/null)
KERNEL_FILES    = $(call sources,kernel)
HOST_FILES      = go.mod go.sum VERSION $(call sources,initramfs vmm mgmt drivers image-build/config image-build/microcode)
IMAGE_FILES     = go.mod go.sum $(call sources,image-build)
UCODE_FILES     = go.mod go.sum $(call sources,image-build/microcode image-build/mkmicrocode qemu-tests/cache)
# MICROCODE=0 makes an image without microcode.
MICROCODE_FILE  = $(OUT)/$(if $(filter 0,$(MICROCODE)),no-microcode,microcode.cpio)
MICROCODE_FLAG  = $(if $(filter 0,$(MICROCODE)),,-microcode $(MICROCODE_FILE))
CTL_FILES       = go.mod go.sum VERSION $(call sources,mgmt image-build)
LAB_FILES       = go.mod go.sum $(call sources,qemu-tests)

# $(call step,what it does,command) runs a command and says how long it took.
define step
@echo "==> $(1)"; t=$$(date +%s%N); $(2) && echo "    done in $$(( ($$(date +%s%N) - t) / 1000000 )) ms"
endef

##@ The two commands
.PHONY: run
run: setup $(LAB) $(OUT)/bin/ashlarctl $(OUT)/ashlar.img demo ## Boot an Ashlar host in QEMU, start a Debian guest on it, attach to its console
	@$(LAB) run

.PHONY: test
test: setup build ## Everything: unit tests, VMM tests on /dev/kvm, end-to-end tests in the lab
	$(call step,Unit tests,$(GO) test -timeout 15m $$($(GO) list ./... | grep -v -x $(patsubst %,-e github.com/ashlar-hv/ashlar/%,$(MACHINES) qemu-tests/e2e)))
	$(call step,Unit tests with the race detector,CGO_ENABLED=1 $(GO) test -race -timeout 15m $$($(GO) list $(RACE) | grep -v -x $(patsubst %,-e github.com/ashlar-hv/ashlar/%,$(NORACE))))
	@$(MACHINE_TESTS)

# Packages in which several goroutines share something.
RACE = ./vmm/seqpacket/... ./vmm/virtio/... ./vmm/machine/... ./vmm/console/... ./mgmt/control/... ./mgmt/core/... ./mgmt/ctl/... ./initramfs/process/...
# Of these, tests of what is confined: the race detector needs cgo, with which no process can
# be (vmm/jail).
NORACE = mgmt/control/ashlar-control mgmt/core/ashlar-core
# Packages whose tests start QEMU, besides qemu-tests/e2e.
MACHINES = image-build drivers/disk/xfs initramfs/boottest kernel/boottest qemu-tests/roottest
# An emulated machine has one CPU, so two of them run side by side: half of the end-to-end
# tests (those whose names begin with EARLY), and the other half with all else that starts
# QEMU. What the second prints comes when both have ended. Three would take as long, and an
# emulated machine with nested guests that waits for a CPU of its own fails more often.
EARLY   = ^Test[A-H]
E2E     = $(GO) test -v -timeout 70m ./qemu-tests/e2e
FIRST   = $(OUT)/test-first.log
SECOND  = $(OUT)/test-second.log
# At the end stands what has failed, with what it said last: the rest is long.
define MACHINE_TESTS
echo "==> End-to-end tests in the lab, tests in machines of their own"; t=$$(date +%s); \
{ $(GO) test -p 1 -timeout 40m $(addprefix ./,$(MACHINES)); r=$$?; $(E2E) -skip '$(EARLY)' && exit $$r; } >$(SECOND) 2>&1 & \
second=$$!; trap "kill $$second; exit 130" INT TERM; \
rm -f $(FIRST).failed; { $(E2E) -run '$(EARLY)' 2>&1 || touch $(FIRST).failed; } | tee $(FIRST); \
r=0; wait $$second || r=1; cat $(SECOND); test ! -e $(FIRST).failed || r=1; \
echo "    ended after $$(( $$(date +%s) - t )) s"; \
test $$r = 0 || { echo "==> Failed"; grep -h -B 20 -E '^ *(--- FAIL|panic:)|^FAIL' $(FIRST) $(SECOND); }; exit $$r
endef

##@ The lab
.PHONY: up down status
up: setup $(LAB) $(OUT)/bin/ashlarctl $(OUT)/$(if $(filter 1,$(LAB_RESCUE)),ashlar-rescue.img,ashlar.img) ## Start the lab host in the background (LAB_MEM, LAB_CPUS, LAB_ARGS, LAB_PORT, LAB_RESCUE=1)
	@$(LAB) up
down: $(LAB) ## Switch the lab host off by its power button
	@$(LAB) down
status: $(LAB) ## Say whether the lab host runs
	@$(LAB) status

##@ Parts
.PHONY: build setup kernel guest-kernel initramfs microcode image demo kernels ctl
build: image $(OUT)/ashlar-rescue.img guest-kernel demo kernels ctl $(LAB) ## Build everything

setup: ## Install what the build and the tests need (asks apt, says so first)
	@$(GO) run ./qemu-tests/setup

kernel: $(OUT)/bzImage ## The host's kernel: out/bzImage
$(OUT)/bzImage: $(KERNEL_FILES)
	$(call step,Host kernel,$(GO) run ./kernel/build host -o $@ && touch $@)

guest-kernel: $(OUT)/guest-bzImage ## A small guest kernel: out/guest-bzImage, out/guest-vmlinux
$(OUT)/guest-bzImage: $(KERNEL_FILES)
	$(call step,Guest kernel,$(GO) run ./kernel/build guest -o $@ && touch $@)

initramfs: $(OUT)/initramfs.cpio.zst ## The host's programs: out/initramfs.cpio.zst
$(OUT)/initramfs.cpio.zst: $(HOST_FILES)
	$(call step,Initramfs,$(GO) run ./initramfs/mkinitramfs -cache $(abspath $(CACHE))/initramfs -version $(VERSION) -o $@)

# The archive's name tells the choice, and only one is there: another choice makes the images anew.
microcode: $(MICROCODE_FILE) ## Microcode from Debian's packages: out/microcode.cpio
$(OUT)/microcode.cpio: $(UCODE_FILES)
	@rm -f $(OUT)/no-microcode
	$(call step,Microcode,$(GO) run ./image-build/mkmicrocode -o $@)
$(OUT)/no-microcode:
	@mkdir -p $(OUT) && rm -f $(OUT)/microcode.cpio && touch $@

image: $(OUT)/ashlar.img ## The disk image to flash: out/ashlar.img; MICROCODE=0 leaves processors' microcode out
	@$(GO) run ./image-build/mkimage -describe $(OUT)/ashlar.img
$(OUT)/ashlar.img: $(OUT)/bzImage $(OUT)/initramfs.cpio.zst $(MICROCODE_FILE) $(IMAGE_FILES)
	$(call step,Disk image,$(GO) run ./image-build/mkimage -kernel $(OUT)/bzImage -initramfs $(OUT)/initramfs.cpio.zst $(MICROCODE_FLAG) -o $@)
$(OUT)/ashlar-rescue.img: $(OUT)/bzImage $(OUT)/initramfs.cpio.zst $(MICROCODE_FILE) $(IMAGE_FILES)
	$(call step,Disk image with a rescue shell,$(GO) run ./image-build/mkimage -rescue -kernel $(OUT)/bzImage -initramfs $(OUT)/initramfs.cpio.zst $(MICROCODE_FLAG) -o $@)

demo: $(OUT)/demo/disk.img ## A Debian guest: out/demo/
$(OUT)/demo/disk.img: qemu-tests/demo/main.go
	$(call step,Debian guest,$(GO) run ./qemu-tests/demo -o $(OUT)/demo && touch -h $@ && touch $@)

kernels: $(OUT)/kernels/generic ## Kernels of other makers, for the tests: out/kernels/
$(OUT)/kernels/generic: qemu-tests/kernels/main.go
	$(call step,Kernels from Debian,$(GO) run ./qemu-tests/kernels -o $(OUT)/kernels && touch -h $@ && touch $@)

ctl: $(OUT)/bin/ashlarctl ## The command line client: out/bin/ashlarctl
$(OUT)/bin/ashlarctl: $(CTL_FILES)
	$(call step,ashlarctl,$(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./mgmt/ctl/ashlarctl)

$(LAB): $(LAB_FILES)
	$(call step,The lab's command,$(GO) build -o $@ ./qemu-tests/ashlar-lab)

##@ Care
.PHONY: bench
bench: setup build ## Ashlar against QEMU, sizes, memory, times: a table and out/bench.json (BENCH_ROUNDS=5, BENCH_REPEATABLE=1, BENCH_PARTS, BENCH_LOADS, BENCH_SIDES, BENCH_MEMORY)
	@$(GO) test ./qemu-tests/e2e -run '^$$' -bench BenchmarkHost -benchtime 1x -timeout 6h -args \
		-rounds $(or $(BENCH_ROUNDS),5) -repeatable=$(if $(filter 1,$(BENCH_REPEATABLE)),true,false) -parts '$(BENCH_PARTS)' -loads '$(BENCH_LOADS)' -sides '$(BENCH_SIDES)' $(if $(BENCH_MEMORY),-host-memory '$(BENCH_MEMORY)')

.PHONY: fuzz-guest
fuzz-guest: setup build ## A guest that attacks its devices in the lab: TIME=10m, SEED=n; what fails is shrunk and kept in out/
	@$(GO) test -count=1 -v -timeout 24h ./qemu-tests/e2e -run 'TestHostileGuest$$' -args -hostile-time $(or $(TIME),10m) -hostile-seed $(or $(SEED),0)

.PHONY: soak
soak: setup build ## Faults in the lab: 300 kills, 100 power cuts, 20 starts with a virtual function, disks, memory, clock (TIME=2h, COUNT, SEED=n, SOAK=TestSoakKills)
	@$(GO) test -count=1 -v -timeout 72h ./qemu-tests/e2e -run '$(or $(SOAK),^(TestSoak|TestFaults))' -args -soak-full \
		-soak-seed $(or $(SEED),0) -soak-count $(or $(COUNT),0) -soak-time $(or $(TIME),0)

TOOL = $(GO) tool -modfile=$(CURDIR)/tools/go.mod
.PHONY: check generate clean help
check: ## Format, vet, lint with the import rules, generated files fresh
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(call step,Vet,$(GO) vet ./...)
	$(call step,Lint,$(TOOL) golangci-lint run ./...)
	$(call step,Lint of the API,cd mgmt/api && $(TOOL) buf lint)
	$(call step,Generated files,$(MAKE) -s generate && git diff --exit-code --stat -- mgmt/api)

generate: ## Generate the API's Go code anew
	@mkdir -p $(OUT)/tools
	@cd tools && $(GO) build -o ../$(OUT)/tools/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go github.com/bufbuild/buf/cmd/buf
	@cd mgmt/api && PATH=$(CURDIR)/$(OUT)/tools:$$PATH buf generate

clean: ## Delete out/ (the cache outside the tree stays)
	@if [ -x $(LAB) ]; then $(LAB) down; fi
	rm -rf $(OUT)

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2} /^up down/ {next}' $(MAKEFILE_LIST)
