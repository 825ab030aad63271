"""python -m utils.synthetic.data_root: write the synthetic data root of a profile."""

from utils.synthetic.data_root import main

main()
