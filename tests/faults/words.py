"""Words of argv that many commands of this folder share."""

CPU = ["--device", "cpu"]
FAST = ["--precision", "fp32", *CPU]
ONE = ["--count", "1", "--steps", "1", *FAST, "--out", "made"]  # of ddim sample
TWO = ["--count", "1", "--steps", "2", *FAST, "--out", "made"]
CYCLE = ["--count", "3", "--steps", "2", "--label", "cycle"]  # the job among the templates
PIXELS = ["--extractor", "pixels", "--count", "10"]
REPORT = ["--steps", "1", "--eta", "0", "--no-sigma-hat", *PIXELS]  # of ddim evaluate
RESUME = ["train", "--resume", "it", "--max-steps", "5", *CPU]
AGAIN = ["train-autoencoder", *RESUME[1:]]
ONCE = ["train", "TEMPLATES/pictures", *FAST, "--max-steps", "1", "--out", "made"]
ENCODED = [*ONCE, "--autoencoder", "it"]
DIGITS = ["--preset", "digits", "--preview-every", "0"]  # of ddim train
HALVING = ["--factor", "2", "--width", "8", "--batch-size", "2", "--held-out", "2", "--preview-every", "0",
           *FAST]  # of ddim train-autoencoder  # fmt: skip
